"""`chomp plan`, as users run it: every plan needs a process whose JAX has not started."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest


def plan(config: Path, *options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "chomp", "plan", str(config), *options]
    return subprocess.run(command, capture_output=True, text=True)


def test_a_sharded_model(config_file: Callable[..., Path]) -> None:
    config = config_file(
        "megalodon",
        model={"model_dim": 64, "num_layers": 2},
        train={"batch_size": 8},
        parallel={"fsdp": 2, "gather": "layer"},
    )
    done = plan(
        config, "--devices", "4", "--hosts", "2", "--memory-gb", "0.02", "--quick", "--json"
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)

    assert found["mesh"] == {"data": 2, "fsdp": 2}
    memory = found["memory_bytes"]
    assert memory["total"] == sum(memory.values()) - memory["total"]
    state = found["checkpoint_bytes"]
    assert state == pytest.approx(12 * found["parameters"], rel=0.001)  # and two moments
    whole = memory["parameters"] + memory["optimizer"]
    assert state / 2 < whole < 0.7 * state  # small parameters are whole on every device
    assert memory["gradients"] == memory["parameters"]
    assert memory["batch"] == 2 * 2 * 64 * 13  # three int32 and a bool of a device's tokens

    kinds = {(one["kind"], one["group_size"], tuple(one["trips"])) for one in found["collectives"]}
    assert {("all-gather", 2, (2, 2)), ("reduce-scatter", 2, (2, 2))} <= kinds  # loops over both
    assert ("all-reduce", 2, ()) in kinds  # over data: once
    in_loops = [one for one in found["collectives"] if one["kind"] == "all-reduce" and one["trips"]]
    assert in_loops == []

    limit = 0.02e9
    assert found["memory_limit_bytes"] == limit and found["fits"] is (memory["total"] <= limit)
    assert set(found["estimates"]) == {"a100-80gb", "h100-sxm", "b200"}
    speed = found["estimates"]["h100-sxm"]
    seconds = found["model_flops_per_step"] / (4 * 989.5e12 * 0.4)
    assert speed["compute_seconds"] == pytest.approx(seconds)
    assert 0 < speed["tokens_per_sec_no_overlap"] < speed["tokens_per_sec_full_overlap"]
    longer = max(seconds, speed["communication_seconds"])
    assert speed["tokens_per_sec_full_overlap"] * longer == pytest.approx(found["tokens_per_step"])


def test_tables(config_file: Callable[..., Path]) -> None:
    config = config_file(train={"batch_size": 4})
    done = plan(config, "--devices", "2", "--hosts", "2", "--accelerator", "rtx-4090")
    assert done.returncode == 0, done.stderr
    for text in ("data 2 x fsdp 1", "optimizer state", "all-reduce", "--network-gbps", "24 GB"):
        assert text in done.stdout
    assert "largest microbatch train.batch_size=2048" in done.stdout  # it needs next to nothing


@pytest.mark.parametrize(
    ("options", "error"),
    [
        (("--devices", "3"), "train.batch_size: must be a multiple of"),
        (("--devices", "4", "-o", "parallel.fsdp=3"), "parallel.fsdp: must divide"),
    ],
)
def test_a_mesh_that_does_not_fit(
    config_file: Callable[..., Path], options: tuple[str, ...], error: str
) -> None:
    done = plan(config_file(train={"batch_size": 4}), *options)
    assert done.returncode == 2
    assert f"error: {error}" in done.stderr and "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("options", "error"),
    [
        (("--devices", "4", "--hosts", "3"), "--hosts 3: 4 devices can't be spread evenly"),
        (("--devices", "4", "--accelerator", "h100"), "--accelerator h100: isn't known"),
    ],
)
def test_refused_before_anything_is_compiled(
    chomp: Any, config_file: Callable[..., Path], options: tuple[str, ...], error: str
) -> None:
    done = chomp("plan", config_file(), *options)
    assert done.code == 2 and error in done.err
