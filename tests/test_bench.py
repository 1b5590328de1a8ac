"""`chomp bench`, on the smallest models: that it measures what it says."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from chomp.bench.spread import Spread, as_json
from chomp.bench.table import table
from chomp.hlo.target import has_gpu_compiler
from chomp.models import build_model


@pytest.fixture
def bench(chomp: Callable[..., Any]) -> Callable[..., dict[str, Any]]:
    def run(*args: object) -> dict[str, Any]:
        done = chomp("bench", *args, "--json")
        assert done.code == 0, done.err
        return json.loads(done.out)

    return run


def test_a_spread_has_the_middle_and_its_surroundings():
    assert Spread.of([4.0, 1.0, 2.0, 3.0, 5.0]) == Spread(3.0, 1.0, 2.0, 4.0, 5)
    assert Spread.of([2.0]) == Spread(2.0, 2.0, 2.0, 2.0, 1)
    flat = as_json({"step_seconds": Spread.of([2.0, 4.0]), "name": "x"})
    assert (flat["step_seconds"], flat["name"]) == (3.0, "x")
    assert flat["step_seconds_spread"]["lowest"] == 2.0


def test_a_table_has_a_column_for_each_program():
    values = {"step_seconds": Spread.of([1.0]), "other_step_seconds": 2.5, "temp_bytes": 2_000_000}
    made = table(values, {"this config": "", "other": "other_"})
    cells = [list(column.cells) for column in made.columns]
    assert cells == [["step_seconds", "temp_bytes"], ["1 s", "2 MB"], ["2.5 s", ""]]


def test_step_against_another_program(bench, config_file, make_config):
    found = bench("step", config_file(), "--against", "stream", "--rounds", 2, "--steps", 1)
    assert found["compile_seconds"] > 0
    assert found["stream_compile_seconds"] > 0
    assert found["temp_bytes"] > 0
    assert found["speedup"] == found["stream_step_seconds"] / found["step_seconds"]
    assert found["tokens_per_second"] == 2 * 2 * 64 / found["step_seconds"]
    per_token = build_model(make_config().model, isolate_documents=False).flops_per_token
    assert found["model_flops_per_token"] == per_token
    assert found["achieved_flops"] == pytest.approx(per_token * found["tokens_per_second"])
    share = found["achieved_flops"] / found["matmul_flops"]
    assert found["fraction_of_matmul_bound"] == pytest.approx(share)
    assert found["step_seconds_spread"]["count"] == 2


@pytest.mark.slow
def test_step_against_the_library(bench, config_file):
    config = config_file("megalodon", data={"isolate_documents": True})
    found = bench("step", config, "--against", "library", "--rounds", 1, "--steps", 1)
    assert found["loss"] == pytest.approx(found["library_loss"], rel=1e-5)
    assert found["grad_norm"] == pytest.approx(found["library_grad_norm"], rel=1e-5)
    # The figures are not mixed up: the library's program is known to need more.
    assert found["library_temp_bytes"] > found["temp_bytes"]
    assert found["library_compile_seconds"] > found["compile_seconds"]


@pytest.mark.gpu_program
@pytest.mark.skipif(not has_gpu_compiler(), reason="the extra `plan` isn't installed")
def test_program_against_another(bench, config_file):
    found = bench("program", config_file(), "--for", "h100", "--against", "stream")
    assert found["operations"] == found["launches"] + found["graph_operations"]
    assert (found["host_waits"], found["unknown_length_loops"]) == (0, 0)
    assert found["tokens_per_step"] == 2 * 2 * 64
    other = found["against"]
    assert other["program"] == "stream"
    speedup = other["estimated_seconds"] / found["estimated_seconds"]
    assert found["estimated_speedup"] == pytest.approx(speedup)


@pytest.mark.parametrize(
    ("name", "error"),
    [
        ("h1000", "--for h1000: isn't known; these are: h100"),
        ("v5e", "--for v5e: only programs of GPUs are counted"),
    ],
)
def test_program_for_what_it_can_not_be_counted_for(chomp, config_file, name, error):
    done = chomp("bench", "program", config_file(), "--for", name)
    assert done.code == 2
    assert error in done.err


def test_data_against_another_pipeline(bench, config_file, tmp_path):
    mine = config_file()
    other = tmp_path / "other.yaml"
    other.write_text(mine.read_text(), "utf-8")
    found = bench("data", mine, "--against", other, "--rounds", 1, "--seconds", 0.1)
    for prefix in ("", "against_"):
        rate, alone = (
            found[prefix + name] for name in ("tokens_per_second", "encode_batch_tokens_per_second")
        )
        assert found[f"{prefix}share_of_encode_batch"] == pytest.approx(rate / alone)
    speedup = found["tokens_per_second"] / found["against_tokens_per_second"]
    assert found["speedup"] == pytest.approx(speedup)


def test_data_that_ends_at_once_is_nothing_to_measure(chomp, config_file):
    done = chomp("bench", "data", config_file(data={"repeat": False}), "--rounds", 1)
    assert done.code == 2
    assert "set data.repeat: true" in done.err


def test_checkpoint_leaves_nothing_behind(bench, config_file, tmp_path):
    folder = tmp_path / "disk"
    folder.mkdir()
    found = bench("checkpoint", config_file(), "--rounds", 1, "--dir", folder)
    # Parameters and two moments of four bytes each, at least.
    assert found["checkpoint_bytes"] > 12 * found["parameters"]
    assert found["async_blocked_seconds"] < found["async_written_seconds"]
    assert min(found["verify_seconds"], found["restore_seconds"]) > 0
    assert list(folder.iterdir()) == []


def test_startup_in_fresh_processes(bench, config_file):
    found = bench("startup", config_file(train={"eval_every": 2}), "--rounds", 1)
    for temperature in ("cold", "warm"):
        parts = [
            value
            for name, value in found.items()
            if re.fullmatch(rf"{temperature}_(?!start).*_seconds", name)
        ]
        assert len(parts) == 9
        # One after the other, and nothing long between them.
        whole = found[f"{temperature}_start_seconds"]
        assert 0.7 * whole < sum(parts) < whole


def test_a_run_that_fails_is_no_measurement(chomp, config_file, tmp_path):
    nowhere: Path = tmp_path / "nowhere.jsonl"
    done = chomp("bench", "startup", config_file(data={"files": [str(nowhere)]}), "--rounds", 1)
    assert done.code == 1
    assert "the run failed" in done.err
    assert str(nowhere) in done.err
