"""`chomp plan`, as users run it: a plan for this machine's processor needs a process of its own."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from forked import ForkServer

from chomp.config import load_config
from chomp.hlo.accelerators import accelerator
from chomp.hlo.compiled import compile_memory
from chomp.hlo.target import has_gpu_compiler
from chomp.trainer.accelerator_program import compiler_options, trace_step_for

needs_compiler = pytest.mark.skipif(
    not has_gpu_compiler(), reason="the extra `plan` isn't installed"
)
WITHOUT_COMPILER = Path(__file__).with_name("without_compiler.py")
Plan = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def plan(fork_server: ForkServer) -> Plan:
    """Run `chomp plan CONFIG OPTIONS` as on a machine without the extra `plan`."""

    def run(config: Path, *options: str) -> subprocess.CompletedProcess[str]:
        command = [str(WITHOUT_COMPILER), "plan", str(config), *options]
        environment = dict(os.environ)
        if fork_server.can_start(environment):
            process = fork_server.start(command, environment)
            out, err = process.communicate()
            return subprocess.CompletedProcess(command, process.wait(), out, err)
        return subprocess.run([sys.executable, *command], capture_output=True, text=True)

    return run


def test_a_sharded_model_without_the_gpus_compiler(
    plan: Plan, config_file: Callable[..., Path]
) -> None:
    config = config_file(
        "megalodon",
        model={"model_dim": 64, "num_layers": 2},
        train={"batch_size": 8},
        parallel={"fsdp": 2, "gather": "layer"},
    )
    options = ("--devices", "4", "--hosts", "2", "--memory-gb", "0.02", "--mfu", "0.4")
    done = plan(config, *options, "--quick", "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)

    assert found["for"] == "h100" and found["upper_bound"] and found["program"] is None
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
    speed = found["estimate"]
    seconds = found["model_flops_per_step"] / (4 * 989.5e12 * 0.4)
    assert speed["compute_seconds"] == pytest.approx(seconds)
    assert 0 < speed["tokens_per_sec_no_overlap"] < speed["tokens_per_sec_full_overlap"]
    longer = max(seconds, speed["communication_seconds"])
    assert speed["tokens_per_sec_full_overlap"] * longer == pytest.approx(found["tokens_per_step"])


def test_tables_without_the_gpus_compiler(plan: Plan, config_file: Callable[..., Path]) -> None:
    config = config_file(train={"batch_size": 4})
    done = plan(config, "--devices", "2", "--for", "rtx4090")
    assert done.returncode == 0, done.stderr
    for text in (
        "data 2 x fsdp 1",
        "optimizer state",
        "all-reduce",
        "nine times",
        "pip install 'chomp[plan]'",
        "give --mfu",
    ):
        assert text in done.stdout
    assert "largest microbatch train.batch_size=2048" in done.stdout  # it needs next to nothing


@pytest.mark.gpu_program
@needs_compiler
def test_memory_is_that_of_the_compiled_program(
    chomp: Any, config_file: Callable[..., Path]
) -> None:
    config = config_file(train={"batch_size": 4})
    done = chomp("plan", config, "--for", "a100", "--devices", 2, "--quick", "--json")
    assert done.code == 0, done.err
    found = json.loads(done.out)
    _, traced = trace_step_for(load_config(config), accelerator("a100"), 2)
    memory = compile_memory(traced, compiler_options(accelerator("a100")))
    planned = memory.argument_size_in_bytes + memory.temp_size_in_bytes
    planned += memory.output_size_in_bytes - memory.alias_size_in_bytes
    assert found["memory_bytes"]["total"] == pytest.approx(planned, rel=0.05)
    assert not found["upper_bound"]
    estimate, program = found["estimate"], found["program"]
    together = estimate["compute_seconds"] + estimate["communication_seconds"]
    assert together == pytest.approx(program["estimated_seconds"])


@pytest.mark.gpu_program
@needs_compiler
def test_a_split_is_proposed(chomp: Any, config_file: Callable[..., Path]) -> None:
    config = config_file(train={"batch_size": 1, "grad_accum": 2})
    done = chomp("plan", config, "--for", "rtx5090", "--propose", "--quick")
    assert done.code == 0, done.err
    # All rows at once: there is nothing to recompute, and it needs next to nothing.
    for text in ("the fastest that fits", "batch_size: 2", "grad_accum: 1", "bound by"):
        assert text in done.out


@pytest.mark.parametrize(
    ("options", "error"),
    [
        (("--devices", "3"), "train.batch_size: must be a multiple of"),
        (("--devices", "4", "-o", "parallel.fsdp=3"), "parallel.fsdp: must divide"),
    ],
)
def test_a_mesh_that_does_not_fit(
    plan: Plan, config_file: Callable[..., Path], options: tuple[str, ...], error: str
) -> None:
    done = plan(config_file(train={"batch_size": 4}), *options)
    assert done.returncode == 2
    assert f"error: {error}" in done.stderr and "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("options", "error"),
    [
        (("--devices", "4", "--hosts", "3"), "--hosts 3: 4 devices can't be spread evenly"),
        (("--accelerator", "rtx-4090"), "--accelerator rtx-4090: write --for rtx4090"),
    ],
)
def test_refused_before_anything_is_compiled(
    chomp: Any, config_file: Callable[..., Path], options: tuple[str, ...], error: str
) -> None:
    done = chomp("plan", config_file(), *options)
    assert done.code == 2 and error in done.err
