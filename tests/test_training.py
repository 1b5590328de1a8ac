"""The training loop, checkpoints and resume, as a user meets them: commands, kills, run folders.

The chains of runs at the top are started once, side by side, and looked at by many tests.
"""

import json
import shlex
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import orbax.checkpoint as ocp
import pytest
import yaml

from chomp.config import config_from_mapping
from chomp.parts import set_up

STEPS = 40
WINDOW = 16
BASE = {
    "train": {"steps": STEPS, "eval_every": 20, "generate_every": 20, "generate_max_tokens": 8},
    "data": {"shuffle_buffer_size": WINDOW},
}
SEQUENTIAL = BASE | {"checkpoint": {"save_every": 1}}
BINS = BASE | {
    "data": {
        "shuffle_buffer_size": WINDOW,
        "packing_mode": "bin",
        "packing_buffer_docs": 8,
        "isolate_documents": True,
        "train_on_eos": False,
        "tokenizer": {"add_bos": True},
    },
    "optim": {"name": "muon", "lr": 3e-4},
    "checkpoint": {"save_every": 4},
}
# What the clock or the machine decides.
MEASURED = {
    "tokens_per_sec",
    "step_time_s",
    "data_wait_share",
    "first_step_compile_time_s",
    "peak_memory_gb",
    "device_memory_gb",
}
# The end of JAX's message about each program that it compiles, which train.log keeps.
COMPILED_STEP = "Finished XLA compilation of jit(train_step)"


@dataclass
class Chain:
    """Runs of one config: `straight` to the end, `broken` with stops in between."""

    folder: Path
    codes: list[int] = field(default_factory=list)
    stops: list[int] = field(default_factory=list)
    """The last step logged before each stop."""
    outputs: list[str] = field(default_factory=list)
    """Standard output of each part of `broken`."""

    @property
    def straight(self) -> Path:
        return self.folder / "straight"

    @property
    def broken(self) -> Path:
        return self.folder / "broken"


def last_step(run: Path) -> int:
    """The newest finished row's step; 0 without any."""
    metrics = run / "metrics.jsonl"
    lines = metrics.read_text().splitlines(keepends=True) if metrics.exists() else []
    return max((json.loads(line)["step"] for line in lines if line.endswith("\n")), default=0)


class Runner:
    """Starts the parts of a chain."""

    def __init__(self, folder: Path, start: Callable[..., subprocess.Popen[str]], values: Any):
        self.chain = Chain(folder)
        self.config = folder / "config.yaml"
        self.config.write_text(yaml.safe_dump(values))
        self._start = start

    def run(self, *args: object, stop: tuple[int, signal.Signals] | None = None) -> str:
        """Run `chomp train ARGS`, to the end or until a step is logged and a signal sent."""
        # Each start has its own order of sets: nothing may depend on it.
        env = {"JAX_LOG_COMPILES": "1", "PYTHONHASHSEED": str(1 + len(self.chain.codes))}
        process = self._start("train", *args, env=env)
        if stop is not None:
            step, number = stop
            patience = time.monotonic() + 240
            while process.poll() is None and last_step(self.chain.broken) < step:
                assert time.monotonic() < patience
                time.sleep(0.002)
            process.send_signal(number)
        out, err = process.communicate(timeout=240)
        self.chain.codes.append(process.returncode)
        if stop is not None:
            self.chain.stops.append(last_step(self.chain.broken))
        assert process.returncode <= 0 or process.returncode > 128, err
        return out

    def run_straight(self) -> None:
        self.chain.outputs.append(self.run(self.config, "--run-dir", self.chain.straight))

    def run_killed_twice(self) -> Chain:
        self.run_straight()
        broken = [self.config, "--run-dir", self.chain.broken]
        self.run(*broken, stop=(13, signal.SIGKILL))
        self.run(*broken, "--resume", "latest", stop=(27, signal.SIGKILL))
        self.run(*broken, "--resume", "latest")
        return self.chain

    def run_stopped_twice(self) -> Chain:
        """Stop with signals, and go on with the very command that the summary names."""
        first = [self.config, "--run-dir", self.chain.broken, "-o", "checkpoint.save_every=1000"]
        self.chain.outputs.append(self.run(*first, stop=(7, signal.SIGTERM)))
        self.chain.outputs.append(self.run(*self._advice(), stop=(22, signal.SIGINT)))
        self.chain.outputs.append(self.run(*self._advice()))
        return self.chain

    def _advice(self) -> list[str]:
        line = next(ln for ln in self.chain.outputs[-1].splitlines() if ln.startswith("resume "))
        words = shlex.split(line)
        assert words[1:3] == ["chomp", "train"]
        return words[3:]


@pytest.fixture(scope="module")
def chains(
    tmp_path_factory: pytest.TempPathFactory, start_chomp: Any, values: Any
) -> Iterator[dict[str, Future[Chain]]]:
    def runner(name: str, sections: dict[str, Any]) -> Runner:
        # A cache of its own: what is in it after a run is the run's doing.
        folder = tmp_path_factory.mktemp(name)
        sections = sections | {"runtime": {"compile_cache": str(folder / "cache")}}
        return Runner(folder, start_chomp, values("megalodon", **sections))

    sequential, bins = runner("sequential", SEQUENTIAL), runner("bin", BINS)
    signals = runner("signals", SEQUENTIAL)
    signals.config.write_text(sequential.config.read_text())

    def sequential_then_signals(done: Future[Chain]) -> Chain:
        return signals.run_stopped_twice() if done.exception() is None else done.result()

    with ThreadPoolExecutor(2) as pool:
        first, second = pool.submit(sequential.run_killed_twice), pool.submit(bins.run_killed_twice)
        third = pool.submit(lambda: sequential_then_signals(first))
        yield {"sequential": first, "bin": second, "signals": third}


@pytest.fixture(scope="module", params=["sequential", "bin"])
def killed(request: pytest.FixtureRequest, chains: dict[str, Future[Chain]]) -> Chain:
    return chains[request.param].result()


@pytest.fixture(scope="module")
def signalled(chains: dict[str, Future[Chain]]) -> Chain:
    return chains["signals"].result()


def unmeasured(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{k: v for k, v in row.items() if k not in MEASURED} for row in rows]


def saved_steps(run: Path) -> list[int]:
    return sorted(int(path.name) for path in (run / "checkpoints").iterdir())


def saved_items(run: Path, step: int) -> dict[str, Any]:
    """Everything in a checkpoint, read with Orbax alone."""
    items = {"params": "Standard", "train": "Standard", "data": "Json", "meta": "Json"}
    with ocp.CheckpointManager(run / "checkpoints", item_names=tuple(items)) as manager:
        args = {name: getattr(ocp.args, f"{kind}Restore")() for name, kind in items.items()}
        return dict(manager.restore(step, args=ocp.args.Composite(**args)))


def assert_same_bits(left: dict[str, Any], right: dict[str, Any]) -> None:
    assert left.keys() == right.keys()
    for name in left:
        a, b = np.asarray(left[name]), np.asarray(right[name])
        assert (a.dtype, a.shape) == (b.dtype, b.shape), name
        assert a.tobytes() == b.tobytes(), name


class TestKilled:
    """kill -9 twice, resumed twice."""

    def test_the_kills_were_kills(self, killed: Chain):
        assert killed.codes == [0, -9, -9, 0]
        assert 13 <= killed.stops[0] < 27 <= killed.stops[1] < STEPS

    def test_all_rows_are_those_of_the_straight_run(self, killed: Chain, read_rows: Any):
        rows = read_rows(killed.broken)
        assert [row["step"] for row in rows] == list(range(1, STEPS + 1))
        assert unmeasured(rows) == unmeasured(read_rows(killed.straight))
        # The runs are such that something could have gone wrong: documents came in windows.
        assert rows[-1]["docs_seen"] > 3 * WINDOW
        assert {"loss", "grad_norm", "tokens_seen", "packing_utilization"} <= set(rows[0])
        assert [row["step"] for row in rows if "eval_loss" in row] == [20, 40]
        assert len({row["loss"] for row in rows}) == STEPS

    def test_final_parameters_and_optimizer_are_the_same_bits(self, killed: Chain):
        straight, broken = (saved_items(run, STEPS) for run in (killed.straight, killed.broken))
        assert len(straight["params"]) > 20
        moments = [name for name in straight["train"] if "mu" in name or "nu" in name]
        assert len(moments) > len(straight["params"])
        assert any(np.asarray(straight["train"][name]).any() for name in moments)
        for part in ("params", "train"):
            assert_same_bits(straight[part], broken[part])
        assert straight["meta"] == broken["meta"]

    def test_samples_are_those_of_the_straight_run(self, killed: Chain, read_rows: Any):
        samples = read_rows(killed.broken / "samples.jsonl")
        assert [sample["step"] for sample in samples] == [20, 40]
        assert samples == read_rows(killed.straight / "samples.jsonl")

    def test_the_step_is_compiled_once_in_each_start(self, killed: Chain):
        straight = (killed.straight / "train.log").read_text()
        broken = (killed.broken / "train.log").read_text()
        assert straight.count(COMPILED_STEP) == 1
        assert broken.count(COMPILED_STEP) == 3

    def test_the_compile_cache_serves_every_later_start(self, killed: Chain, read_rows: Any):
        names = [path.name for path in (killed.folder / "cache").iterdir()]
        assert sum(name.startswith("jit_train_step") and "-cache" in name for name in names) == 1
        name = "first_step_compile_time_s"
        first, later = read_rows(killed.straight)[0][name], read_rows(killed.broken)[0][name]
        assert later < 0.7 * first
        # The row that was the first of its start says what that start's compilation took.
        assert name not in read_rows(killed.straight)[1]

    def test_tokens_seen_is_a_recount_of_the_targets(self, killed: Chain, read_rows: Any):
        resolved = json.loads((killed.broken / "config_resolved.json").read_text())
        resolved.pop("derived")
        config = config_from_mapping(resolved)
        setup = set_up(config, killed.broken / "tokenizer")
        seen, counts, padded, masked = 0, [], 0, 0
        for _ in range(STEPS):
            batch = next(setup.data.train).batch
            for row in range(4):
                ids, labels, segments, mask = (array[row // 2, row % 2] for array in batch)
                for i in range(1, len(ids)):
                    is_eos = not config.data.train_on_eos and ids[i] == config.model.eos_token_id
                    counts_here = mask[i] and segments[i] == segments[i - 1] and not is_eos
                    seen += bool(counts_here)
                    padded += not mask[i]
                    masked += bool(mask[i]) and not counts_here
                    assert counts_here == (labels[i] != -100)
            counts.append(seen)
        setup.data.close()
        assert [row["tokens_seen"] for row in read_rows(killed.broken)] == counts
        assert masked > 0
        assert (padded > 0) == (config.data.packing_mode == "bin")

    def test_output_is_plain_without_a_terminal(self, killed: Chain):
        out = killed.outputs[0]
        assert "\x1b" not in out
        assert "\r" not in out
        assert "━" not in out
        lines = out.splitlines()
        assert sum(line.startswith("step ") for line in lines) == STEPS
        summary = "\n".join(lines[-8:])
        for word in ("finished ", "loss ", "evaluation ", "tokens ", "run folder", "generate "):
            assert f"\n{word}" in f"\n{summary}", word
        assert "bits per byte" in summary


class TestSignals:
    """SIGTERM, then SIGINT, each resumed by the command that the summary gives."""

    def test_exit_codes(self, signalled: Chain):
        assert signalled.codes == [143, 130, 0]

    def test_the_last_finished_step_was_saved(self, signalled: Chain):
        for stop in signalled.stops:
            assert stop in saved_steps(signalled.broken)
        # Nothing else asked for a checkpoint.
        assert saved_steps(signalled.broken) == [*signalled.stops, STEPS]
        assert 7 <= signalled.stops[0] < 22 <= signalled.stops[1] < STEPS

    def test_the_run_goes_on_exactly(
        self, signalled: Chain, chains: dict[str, Future[Chain]], read_rows: Any
    ):
        straight = read_rows(chains["sequential"].result().straight)
        assert unmeasured(read_rows(signalled.broken)) == unmeasured(straight)

    def test_the_summary_says_that_it_was_stopped(self, signalled: Chain):
        for out, stop in zip(signalled.outputs, signalled.stops, strict=False):
            assert f"stopped    after step {stop} of {STEPS}" in out
        assert f"finished   after step {STEPS} of {STEPS}" in signalled.outputs[-1]
