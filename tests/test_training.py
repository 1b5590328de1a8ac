"""The training loop, checkpoints and resume, as a user meets them: commands, kills, run folders.

The chains of runs at the top are started once, side by side, and looked at by many tests.
"""

import json
import re
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest
import yaml

from chomp.checkpoint.checkpointer import Checkpointer
from chomp.checkpoint.directory import CheckpointChoice, CheckpointDirectory
from chomp.config import config_from_mapping
from chomp.trainer.components import build_components

# Those of this process; the runs of the chains are processes, which share nothing.
pytestmark = pytest.mark.usefixtures("share_programs")

STEPS = 28
WINDOW = 8
# The bigram model, whose starts are short; batches so large that a step can be hit.
SEQUENTIAL = {
    "train": {"steps": STEPS, "eval_every": 14, "seq_len": 2048},
    "data": {"shuffle_buffer_size": WINDOW},
    "checkpoint": {"save_every": 2},
}
BINS = {
    "train": {"steps": STEPS, "eval_every": 14, "generate_every": 14, "generate_max_tokens": 8},
    "data": {
        "shuffle_buffer_size": WINDOW,
        "packing_mode": "bin",
        "packing_buffer_docs": 8,
        "isolate_documents": True,
        "train_on_eos": False,
        "tokenizer": {"add_bos": True},
    },
    "model": {"dropout": 0.1},
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
    "mfu",
    "fraction_of_matmul_bound",
}
# The end of JAX's message about each program that it compiles, which train.log keeps.
COMPILED_STEP = "Finished XLA compilation of jit(train_step)"
LOADED_STEP = "Persistent compilation cache hit for 'jit_train_step'"


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
    *lines, _ = metrics.read_text().split("\n") if metrics.exists() else [""]
    return json.loads(lines[-1])["step"] if lines else 0


class Runner:
    """Starts the parts of a chain; `seeded`: each has its own order of sets, and logs compiles."""

    def __init__(self, folder: Path, start: Callable[..., Any], values: Any, seeded: bool):
        self.chain, self._seeded = Chain(folder), seeded
        self.config = folder / "config.yaml"
        self.config.write_text(yaml.safe_dump(values))
        self._start = start

    def run(self, *args: object, stop: tuple[int, signal.Signals] | None = None) -> str:
        """Run `chomp train ARGS`, to the end or until a step is logged and a signal sent."""
        # Nothing may depend on the order of sets.
        seed = str(1 + len(self.chain.codes))
        env = {"JAX_LOG_COMPILES": "1", "PYTHONHASHSEED": seed} if self._seeded else {}
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
        self.run(*broken, stop=(5, signal.SIGKILL))
        self.run(*broken, "--resume", "latest", stop=(15, signal.SIGKILL))
        self.run(*broken, "--resume", "latest")
        return self.chain

    def run_stopped_twice(self) -> Chain:
        """Stop with signals, and go on with the very command that the summary names."""
        first = [self.config, "--run-dir", self.chain.broken, "-o", "checkpoint.save_every=1000"]
        self.chain.outputs.append(self.run(*first, stop=(5, signal.SIGTERM)))
        self.chain.outputs.append(self.run(*self._advice(), stop=(16, signal.SIGINT)))
        self.chain.outputs.append(self.run(*self._advice()))
        return self.chain

    def _advice(self) -> list[str]:
        line = next(ln for ln in self.chain.outputs[-1].splitlines() if ln.startswith("resume "))
        words = shlex.split(line)
        assert (Path(words[1]).name, words[2]) == ("chomp", "train")
        return words[3:]


@pytest.fixture(scope="module")
def chains(
    tmp_path_factory: pytest.TempPathFactory, start_chomp: Any, values: Any
) -> Iterator[dict[str, Future[Chain]]]:
    def runner(name: str, backend: str, sections: dict[str, Any]) -> Runner:
        # A cache of its own: what is in it after a run is the run's doing.
        folder = tmp_path_factory.mktemp(name)
        sections = sections | {"runtime": {"compile_cache": str(folder / "cache")}}
        seeded = name != "signals"
        return Runner(folder, start_chomp, values(backend, **sections), seeded)

    sequential = runner("sequential", "dummy", SEQUENTIAL)
    bins, signals = (runner(name, "megalodon", BINS) for name in ("bin", "signals"))
    signals.config.write_text(bins.config.read_text())

    def killed_then_signals(done: Future[Chain]) -> Chain:
        return signals.run_stopped_twice() if done.exception() is None else done.result()

    with ThreadPoolExecutor(2) as pool:
        first, second = pool.submit(bins.run_killed_twice), pool.submit(sequential.run_killed_twice)
        third = pool.submit(lambda: killed_then_signals(first))
        yield {"sequential": second, "bin": first, "signals": third}


@pytest.fixture(scope="module", params=["sequential", "bin"])
def killed(request: pytest.FixtureRequest, chains: dict[str, Future[Chain]]) -> Chain:
    return chains[request.param].result()


@pytest.fixture(scope="module")
def killed_megalodon(chains: dict[str, Future[Chain]]) -> Chain:
    return chains["bin"].result()


@pytest.fixture(scope="module")
def signalled(chains: dict[str, Future[Chain]]) -> Chain:
    return chains["signals"].result()


def unmeasured(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    measured = MEASURED | {"mfu", "fraction_of_matmul_bound"}  # one of them, by device
    return [{k: v for k, v in row.items() if k not in measured} for row in rows]


def saved_steps(run: Path) -> list[int]:
    return CheckpointDirectory(run / "checkpoints").steps()


def saved_items(run: Path, step: int) -> dict[str, Any]:
    """Everything in a checkpoint, its arrays read with Orbax alone."""
    folder = run / "checkpoints" / str(step)
    with ocp.StandardCheckpointer() as reader:
        arrays = {name: reader.restore(folder / name) for name in ("params", "train")}
    return arrays | json.loads((folder / "run.json").read_text())


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
        assert 5 <= killed.stops[0] < 15 <= killed.stops[1] < STEPS

    def test_all_rows_are_those_of_the_straight_run(self, killed: Chain, read_rows: Any):
        rows = read_rows(killed.broken)
        assert [row["step"] for row in rows] == list(range(1, STEPS + 1))
        assert unmeasured(rows) == unmeasured(read_rows(killed.straight))
        # The runs are such that something could have gone wrong: documents came in windows.
        assert rows[-1]["docs_seen"] > 3 * WINDOW
        assert {"loss", "grad_norm", "tokens_seen", "packing_utilization"} <= set(rows[0])
        assert [row["step"] for row in rows if "eval_loss" in row] == [14, 28]
        assert len({row["loss"] for row in rows}) == STEPS

    def test_final_parameters_and_optimizer_are_the_same_bits(self, killed: Chain):
        straight, broken = (saved_items(run, STEPS) for run in (killed.straight, killed.broken))
        assert len(straight["params"]) > 1
        moments = [name for name in straight["train"] if "mu" in name or "nu" in name]
        assert len(moments) > len(straight["params"])
        assert any(np.asarray(straight["train"][name]).any() for name in moments)
        for part in ("params", "train"):
            assert_same_bits(straight[part], broken[part])
        for part in ("meta", "data", "progress"):
            assert straight[part] == broken[part]

    def test_they_are_those_of_a_whole_megalodon(self, killed_megalodon: Chain):
        assert len(saved_items(killed_megalodon.broken, STEPS)["params"]) > 20

    def test_samples_are_those_of_the_straight_run(self, killed_megalodon: Chain, read_rows: Any):
        samples = read_rows(killed_megalodon.broken / "samples.jsonl")
        assert [sample["step"] for sample in samples] == [14, 28]
        assert samples == read_rows(killed_megalodon.straight / "samples.jsonl")

    def test_the_ledger_holds_each_step_once(self, killed: Chain, read_rows: Any):
        ledger = read_rows(killed.broken / "ledger.jsonl")
        assert [line["step"] for line in ledger] == list(range(STEPS + 1))
        assert ledger == read_rows(killed.straight / "ledger.jsonl")
        hashes = [row["batch_hash"] for row in read_rows(killed.broken)]
        assert [line["hash"] for line in ledger[1:]] == hashes
        assert len(set(hashes)) == STEPS

    def test_the_step_is_compiled_once_in_each_start(self, killed: Chain):
        straight = (killed.straight / "train.log").read_text()
        broken = (killed.broken / "train.log").read_text()
        assert straight.count(COMPILED_STEP) == 1
        assert broken.count(COMPILED_STEP) == 3

    def test_the_compile_cache_serves_every_later_start(self, killed_megalodon: Chain):
        names = [path.name for path in (killed_megalodon.folder / "cache").iterdir()]
        assert sum(name.startswith("jit_train_step") and "-cache" in name for name in names) == 1
        assert (killed_megalodon.straight / "train.log").read_text().count(LOADED_STEP) == 0
        assert (killed_megalodon.broken / "train.log").read_text().count(LOADED_STEP) == 3

    def test_the_first_row_of_a_start_says_what_compiling_took(self, killed: Chain, read_rows: Any):
        first, second, *_ = read_rows(killed.straight)
        assert first["first_step_compile_time_s"] > 0
        assert "first_step_compile_time_s" not in second

    def test_tokens_seen_is_a_recount_of_the_targets(self, killed: Chain, read_rows: Any):
        resolved = json.loads((killed.broken / "config_resolved.json").read_text())
        resolved.pop("derived")
        config = config_from_mapping(resolved)
        setup = build_components(config, killed.broken / "tokenizer")
        seen, counts, padded, masked = 0, [], 0, 0
        for _ in range(STEPS):
            batch = jax.device_get(next(setup.data.train).batch)
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

    def test_output_is_plain_without_a_terminal(self, killed_megalodon: Chain):
        out = killed_megalodon.outputs[0]
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
        assert 5 <= signalled.stops[0] < 16 <= signalled.stops[1] < STEPS

    def test_the_run_goes_on_exactly(
        self, signalled: Chain, chains: dict[str, Future[Chain]], read_rows: Any
    ):
        straight = read_rows(chains["bin"].result().straight)
        assert unmeasured(read_rows(signalled.broken)) == unmeasured(straight)

    def test_the_summary_says_that_it_was_stopped(self, signalled: Chain):
        for out, stop in zip(signalled.outputs, signalled.stops, strict=False):
            assert f"stopped    after step {stop} of {STEPS}" in out
        assert f"finished   after step {STEPS} of {STEPS}" in signalled.outputs[-1]


@pytest.fixture
def train(chomp: Any, tmp_path: Path) -> Callable[..., Any]:
    """Run `chomp train ARGS --run-dir tmp_path/run` in this process."""
    return lambda *args: chomp("train", *args, "--run-dir", tmp_path / "run")


def files_of(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


class KilledError(Exception):
    pass


class TestRunFolder:
    def test_holds_what_the_run_is(self, train: Any, config_file: Any, tmp_path: Path):
        config = config_file(train={"steps": 6, "eval_every": 3}, optim={"decay_steps": None})
        original = config.read_text() + "# a comment of the user\n"
        config.write_text(original)
        assert train(config).code == 0
        run = tmp_path / "run"
        names = {path.name for path in run.iterdir() if path.name != ".lock"}
        assert names == {
            *("config_original.yaml", "config_resolved.json", "metrics.jsonl", "train.log"),
            *("tokenizer", "samples.jsonl", "checkpoints", "run.json", "heartbeat"),
            "ledger.jsonl",
        }
        assert (run / "config_original.yaml").read_text() == original
        resolved = json.loads((run / "config_resolved.json").read_text())
        assert resolved["derived"]["optim"] == {
            "decay_steps_effective": 6,
            "decay_steps_after_warmup": 3,
        }
        assert resolved["derived"]["train"]["tokens_planned"] == 6 * 2 * 2 * 64
        assert resolved["optim"]["adam"]["b2"] == 0.999
        assert "orbax" in (run / "train.log").read_text() + "absl"  # other libraries' lines

    def test_rows_have_the_fields_that_users_read(
        self, train: Any, config_file: Any, tmp_path: Path, read_rows: Any
    ):
        sections = {"train": {"steps": 7, "log_every": 3, "eval_every": 5}}
        sections |= {"optim": {"name": "muon"}, "logging": {"peak_tflops": None}}
        assert train(config_file(**sections)).code == 0
        rows = read_rows(tmp_path / "run")
        assert [row["step"] for row in rows] == [3, 5, 6, 7]
        for row in rows:
            utilization = {"mfu", "fraction_of_matmul_bound"}
            assert MEASURED - {"first_step_compile_time_s"} - utilization <= set(row)
            assert len(utilization & set(row)) == 1
            assert {"docs_seen", "docs_truncated", "packing_mode", "lr"} <= set(row)
            assert row["lr_muon"] == pytest.approx(100 * row["lr"])
            assert 0 < row["packing_utilization"] <= 1
            assert 0 <= row["data_wait_share"] <= 1
        assert ["first_step_compile_time_s" in row for row in rows] == [True, False, False, False]
        assert ["eval_loss" in row for row in rows] == [False, True, False, True]
        last = rows[-1]
        assert last["eval_perplexity"] == pytest.approx(np.exp(last["eval_loss"]))

    def test_a_peak_in_the_config_makes_rows_of_mfu(
        self, train: Any, config_file: Any, tmp_path: Path, read_rows: Any
    ):
        assert train(config_file(logging={"peak_tflops": 0.5})).code == 0
        # Forward and backward, embedding to vocabulary, for each position.
        flops = 2 * 2 * 64 * (3 * 2 * 16 * 384)
        for row in read_rows(tmp_path / "run"):
            assert row["mfu"] == pytest.approx(flops / row["step_time_s"] / 0.5e12)
            assert "fraction_of_matmul_bound" not in row

    def test_a_second_run_in_it_is_refused(self, train: Any, config_file: Any, tmp_path: Path):
        config = config_file()
        assert train(config).code == 0
        before = files_of(tmp_path / "run")
        done = train(config)
        assert done.code == 2
        assert "--resume latest" in done.err
        assert "another --run-dir" in done.err
        assert "Traceback" not in done.err
        assert files_of(tmp_path / "run") == before

    def test_another_run_s_checkpoints_are_not_taken_over(
        self, chomp: Any, config_file: Any, tmp_path: Path
    ):
        shared = ["-o", f"checkpoint.root_dir={tmp_path / 'shared'}"]
        config = config_file()
        assert chomp("train", config, "--run-dir", tmp_path / "one", *shared).code == 0
        before = files_of(tmp_path / "shared")
        assert chomp("train", config, "--run-dir", tmp_path / "two").code == 0
        for more in (["--run-dir", tmp_path / "new"], ["--run-dir", tmp_path / "two"]):
            resume = ["--resume", "latest"] if more[1].exists() else []
            done = chomp("train", config, *more, *shared, *resume)
            assert done.code == 2
            assert f"belongs to the run in {tmp_path / 'one'}" in done.err
        assert files_of(tmp_path / "shared") == before

    @pytest.mark.parametrize(
        ("killed_in", "config_again"),
        [
            ("run.run_folder.RunFolder.lock", True),
            ("run.run_folder.RunFolder.lock", False),
            ("trainer.open_run.claim_outputs", True),
            ("trainer.open_run._open_checkpointer", False),
            ("trainer.launch._build", False),
            ("trainer.launch._write_start", True),
        ],
    )
    def test_a_start_that_is_killed_anywhere_can_be_started_again(
        self,
        chomp: Any,
        config_file: Any,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        killed_in: str,
        config_again: bool,
    ):
        """In one of these functions; what a start tidies up, it doesn't when it is killed."""
        run, config = tmp_path / "run", config_file()

        def killed(*_: Any, **__: Any) -> None:
            raise KilledError

        with monkeypatch.context() as patch:
            patch.setattr(f"chomp.{killed_in}", killed)
            patch.setattr("chomp.run.run_folder.RunFolder.free_if_not_begun", lambda folder: None)
            with pytest.raises(KilledError):
                chomp("train", config, "--run-dir", run)
        again = [config] if config_again else []
        done = chomp("train", *again, "--run-dir", run, "--resume", "latest")
        if killed_in.endswith("lock") and not config_again:  # nothing knows the config
            assert done.code == 2
            assert "chomp train CONFIG" in done.err
        else:
            assert done.code == 0, done.err
            assert saved_steps(run) == [4]

    def test_there_must_be_a_run_to_resume(self, train: Any, config_file: Any, tmp_path: Path):
        done = train(config_file(), "--resume", "latest")
        assert done.code == 2
        assert f"{tmp_path / 'run'} holds no run" in done.err
        assert not (tmp_path / "run").exists()

    def test_without_a_name_it_is_a_dated_one(
        self, chomp: Any, config_file: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ):
        monkeypatch.chdir(tmp_path)
        config = config_file()
        for count in (1, 2):
            assert chomp("train", config, "-o", "train.steps=4").code == 0
            assert len(list((tmp_path / "runs").iterdir())) == count


class TestResume:
    def test_lists_every_changed_value_before_anything_is_built(
        self, train: Any, config_file: Any, tmp_path: Path
    ):
        assert train(config_file()).code == 0
        before = files_of(tmp_path / "run")
        changed = {"model": {"d_model": 32}, "data": {"seed": 5}, "optim": {"lr": 1e-4}}
        done = train(config_file(**changed), "--resume", "latest")
        assert done.code == 2
        for line in (
            "model.d_model: was 16, now 32",
            "data.seed: was 0, now 5",
            "optim.lr: was 0.003, now 0.0001",
            "--allow-change",
        ):
            assert line in done.err
        assert done.out == ""
        after = files_of(tmp_path / "run")
        after.pop("train.log"), before.pop("train.log")
        assert after == before

    def test_a_change_that_is_allowed_by_name_is_made(
        self, train: Any, config_file: Any, tmp_path: Path, read_rows: Any
    ):
        assert train(config_file()).code == 0
        more = ["--resume", "latest", "-o", "train.steps=6", "-o", "optim.lr=0.001"]
        assert train(config_file(), *more, "--allow-change", "data.seed").code == 2
        done = train(config_file(), *more, "--allow-change", "optim.lr")
        assert done.code == 0, done.err
        assert "optim.lr: was 0.003, now 0.001" in done.out
        assert "train.steps: was 4, now 6" in done.out
        rows = read_rows(tmp_path / "run")
        assert [row["step"] for row in rows] == [1, 2, 3, 4, 5, 6]
        assert rows[4]["lr"] < 0.001 < rows[3]["lr"]

    def test_more_steps_say_what_becomes_of_the_schedule(self, train: Any, config_file: Any):
        config = config_file(optim={"decay_steps": None})
        assert train(config).code == 0
        done = train(config, "--resume", "latest", "-o", "train.steps=6")
        assert done.code == 0
        (line,) = [line for line in done.out.splitlines() if line.startswith("rate ")]
        assert re.search(r" at step 5 rather than 0\.00e\+00, \S+ at the last step, 6$", line)

    def test_other_contents_of_the_same_files_are_refused(
        self, train: Any, config_file: Any, corpus: Path, tmp_path: Path
    ):
        own = tmp_path / "own.jsonl"
        own.write_bytes(corpus.read_bytes())
        config = config_file(data={"files": [str(own)]})
        assert train(config).code == 0
        own.write_bytes(corpus.read_bytes().replace(b"def ", b"dEf "))
        done = train(config, "--resume", "latest", "-o", "train.steps=6")
        assert done.code == 2
        assert "data.content" in done.err
        assert "was" in done.err

    def test_at_an_earlier_step_goes_on_exactly_and_sets_the_later_ones_aside(
        self, train: Any, config_file: Any, tmp_path: Path, read_rows: Any
    ):
        run = tmp_path / "run"
        config = config_file(train={"steps": 6}, checkpoint={"save_every": 2})
        assert train(config).code == 0
        rows, last = read_rows(run), saved_items(run, 6)
        done = train(config, "--resume", "2")
        assert done.code == 0
        assert "set aside" in done.out
        assert unmeasured(read_rows(run)) == unmeasured(rows)
        assert_same_bits(saved_items(run, 6)["train"], last["train"])
        assert saved_steps(run) == [2, 4, 6]
        assert {path.name for path in (run / "checkpoints" / "set-aside-1").iterdir()} == {"4", "6"}
        done = train(config, "--resume", "5")
        assert done.code == 2
        assert "2, 4, 6" in done.err

    def test_falls_back_behind_a_damaged_checkpoint_and_goes_on_exactly(
        self, train: Any, config_file: Any, tmp_path: Path, read_rows: Any
    ):
        run = tmp_path / "run"
        config = config_file(train={"steps": 7}, checkpoint={"save_every": 2})
        assert train(config).code == 0
        rows, last = read_rows(run), saved_items(run, 7)
        (run / "checkpoints" / "7" / "run.json").unlink()
        data = next((run / "checkpoints" / "6" / "train" / "d").iterdir())
        data.write_bytes(data.read_bytes()[:-1])
        before = files_of(run / "checkpoints")
        done = train(config, "--resume", "6")
        assert done.code == 2
        assert "step 6" in done.err and "is damaged: train/d/" in done.err
        assert "good steps: 4" in done.err
        assert files_of(run / "checkpoints") == before
        done = train(config, "--resume", "latest")
        assert done.code == 0, done.err
        assert "step 7 is damaged: run.json is missing" in done.out
        assert "step 6 is damaged: train/d/" in done.out
        assert "falling back to step 4" in done.out
        assert "3 steps are trained again" in done.out
        aside = run / "checkpoints" / "set-aside-1"
        assert files_of(aside) == {k: v for k, v in before.items() if not k.startswith("4/")}
        assert unmeasured(read_rows(run)) == unmeasured(rows)
        for part in ("params", "train"):
            assert_same_bits(saved_items(run, 7)[part], last[part])

    def test_without_a_good_checkpoint_is_refused(
        self, train: Any, config_file: Any, tmp_path: Path
    ):
        assert train(config_file(checkpoint={"save_every": 2})).code == 0
        (tmp_path / "run" / "checkpoints" / "2" / "manifest.json").write_text("")
        (tmp_path / "run" / "checkpoints" / "4" / "params" / "_METADATA").write_text("")
        before = files_of(tmp_path / "run")
        done = train("--resume", "latest")
        assert done.code == 2
        assert "step 2: manifest.json is damaged" in done.err
        assert "step 4: params/_METADATA has 0 bytes" in done.err
        assert "Traceback" not in done.err
        after = files_of(tmp_path / "run")
        after.pop("train.log"), before.pop("train.log")
        assert after == before

    def test_needs_no_config_file(self, chomp: Any, train: Any, config_file: Any, tmp_path: Path):
        assert train(config_file()).code == 0
        original = (tmp_path / "run" / "config_original.yaml").read_text()
        done = train("--resume", "latest", "-o", "train.steps=5")
        assert done.code == 0, done.err
        assert "finished   after step 5 of 5" in done.out
        assert (tmp_path / "run" / "config_original.yaml").read_text() == original

    def test_a_run_killed_before_its_first_checkpoint_starts_again(
        self,
        start_chomp: Any,
        train: Any,
        chomp: Any,
        config_file: Any,
        tmp_path: Path,
        read_rows: Any,
    ):
        # Slow enough to be caught: evaluations take their time.
        config = config_file(train={"steps": 12, "eval_every": 1}, data={"max_eval_samples": 60})
        run = tmp_path / "run"
        process = start_chomp("train", config, "--run-dir", run)
        while process.poll() is None and last_step(run) < 3:
            time.sleep(0.002)
        process.kill()
        process.communicate()
        assert process.returncode == -9
        done = train(config, "--resume", "latest")
        assert done.code == 0, done.err
        assert "nothing is saved" in done.out
        assert chomp("train", config, "--run-dir", tmp_path / "straight").code == 0
        rows = read_rows(run)
        assert [row["step"] for row in rows] == list(range(1, 13))
        assert unmeasured(rows) == unmeasured(read_rows(tmp_path / "straight"))


class TestEndings:
    def test_divergence_ends_the_run_before_it_is_saved(
        self, train: Any, config_file: Any, tmp_path: Path, read_rows: Any
    ):
        config = config_file(optim={"lr": 1e30, "warmup_steps": 0}, checkpoint={"save_every": 1})
        done = train(config)
        assert done.code == 1
        assert done.err.startswith("error: loss or gradients were not finite")
        assert "optim.lr" in done.err
        assert "Traceback" not in done.err
        run = tmp_path / "run"
        row = read_rows(run)[-1]
        assert row["error"] == "DivergedError"
        assert "not finite" in row["reason"]
        saved = saved_items(run, saved_steps(run)[-1])
        assert all(np.isfinite(leaf).all() for leaf in saved["params"].values())
        # Whatever the rows hold, each is JSON to the letter.
        text = (run / "metrics.jsonl").read_text()
        assert "NaN" not in text.replace('"reason"', "")

    def test_without_nan_check_bad_updates_are_left_out(
        self, train: Any, config_file: Any, tmp_path: Path, read_rows: Any
    ):
        config = config_file(optim={"lr": 1e30, "warmup_steps": 0}, debug={"nan_check": False})
        assert train(config).code == 0
        run = tmp_path / "run"
        assert [row["updates_rejected"] for row in read_rows(run)] == [0, 1, 2, 3]
        assert all(np.isfinite(v).all() for v in saved_items(run, 4)["params"].values())

    def test_skipping_goes_on_and_gives_up_at_its_limit(
        self, train: Any, config_file: Any, tmp_path: Path, read_rows: Any
    ):
        config = config_file(
            optim={"lr": 1e30, "warmup_steps": 0},
            train={"steps": 9, "on_divergence": "skip", "divergence_limit": 5},
        )
        done = train(config)
        assert done.code == 1
        assert done.out.count("warning: loss nan") == 5
        assert "train.divergence_limit is 5" in done.err
        assert [row["updates_rejected"] for row in read_rows(tmp_path / "run")[:-1]] == [*range(6)]

    def test_rewinding_gives_up_at_its_limit(self, train: Any, config_file: Any):
        config = config_file(
            optim={"lr": 1e30, "warmup_steps": 0},
            train={"steps": 9, "on_divergence": "rewind", "divergence_limit": 2},
        )
        done = train(config)
        assert done.code == 1
        assert "going back to step 0, and leaving out batch 2" in done.out
        assert "going back to step 0, and leaving out batch 3" in done.out
        assert "rewound 2 times already (train.divergence_limit)" in done.err
        assert "Traceback" not in done.err

    @pytest.mark.parametrize("log_every", [1, 1000])
    def test_data_that_ends_ends_the_run_well(
        self, train: Any, config_file: Any, tmp_path: Path, read_rows: Any, log_every: int
    ):
        config = config_file(
            data={"repeat": False},
            train={"steps": 1000, "log_every": log_every, "eval_every": 1000},
            optim={"warmup_steps": 3, "decay_steps": 30},
        )
        done = train(config)
        assert done.code == 0
        assert "the data ended after step" in done.out
        run = tmp_path / "run"
        rows = read_rows(run)
        last = rows[-1]["step"]
        assert len(rows) == (last if log_every == 1 else 1)
        assert {"loss", "tokens_seen", "eval_loss", "lr"} <= set(rows[-1])
        assert saved_steps(run) == [last]
        assert "bits per byte" in done.out
        # All documents but the three that were held out, each once.
        documents = len((Path(config_data(config)["files"][0])).read_text().splitlines())
        assert rows[-1]["docs_seen"] == documents - 3

    def test_a_broken_document_ends_the_run_saved(
        self, train: Any, config_file: Any, corpus: Path, tmp_path: Path, read_rows: Any
    ):
        lines = corpus.read_bytes().splitlines(keepends=True)
        broken = tmp_path / "broken.jsonl"
        # Far enough behind for some steps before it: documents are encoded in blocks, ahead.
        whole = lines + lines
        broken.write_bytes(b"".join([*whole[:200], b'{"text": "never closed\n', *whole[200:]]))
        data = {"files": [str(broken)], "shuffle": False, "grain_prefetch": 1}
        done = train(config_file(data=data, train={"steps": 200}))
        assert done.code == 2
        assert f"{broken}" in done.err
        assert "201" in done.err
        assert "Traceback" not in done.err
        run = tmp_path / "run"
        *_, before, last = read_rows(run)
        assert last["error"] == "DataError"
        assert "201" in last["reason"]
        assert saved_steps(run) == [before["step"]]

    def test_without_checkpoints_none_are_written(
        self, train: Any, config_file: Any, tmp_path: Path
    ):
        done = train(config_file(checkpoint={"enabled": False}))
        assert done.code == 0
        assert not (tmp_path / "run" / "checkpoints").exists()
        assert "--resume" not in done.out


class TestRewind:
    """One batch of noise in a text that is otherwise easy to learn."""

    STEPS, BAD = 30, 21

    @pytest.fixture
    def texts_with_noise(self, texts: list[str]) -> list[str]:
        """Documents that fill a row each with their EOS: a batch is four of them."""
        rng = np.random.default_rng(0)
        easy = ["abc" * 21] * 4 * (self.STEPS + 1)
        at = 4 * (self.BAD - 1)
        easy[at : at + 4] = ["".join(map(chr, rng.integers(33, 127, 63))) for _ in range(4)]
        return easy

    @pytest.fixture
    def config_of(self, config_file: Any) -> Callable[..., Path]:
        def make(documents: list[str], **sections: Any) -> Path:
            return config_file(
                data={"backend": "local_text", "local_text": documents, "shuffle": False},
                train={
                    "steps": self.STEPS,
                    "log_every": 5,
                    "on_spike": "rewind",
                    "spike_window": 16,
                    "spike_threshold": 5.0,
                },
                optim={"lr": 0.1},
                checkpoint={"save_every": 8},
                **sections,
            )

        return make

    def test_goes_back_and_leaves_out_just_the_batch_that_did_it(
        self,
        chomp: Any,
        train: Any,
        config_of: Callable[..., Path],
        texts_with_noise: list[str],
        tmp_path: Path,
        read_rows: Any,
    ):
        done = train(config_of(texts_with_noise))
        assert done.code == 0, done.err
        assert f"at step {self.BAD} is" in done.out
        assert f"going back to step 16, and leaving out batch {self.BAD}\n" in done.out
        del texts_with_noise[4 * (self.BAD - 1) : 4 * self.BAD]
        assert chomp("train", config_of(texts_with_noise), "--run-dir", tmp_path / "c").code == 0
        run, clean = tmp_path / "run", tmp_path / "c"
        rows = read_rows(run)
        assert [row["step"] for row in rows] == [5, 10, 15, 20, 25, 30]
        for row, expected in zip(rows, read_rows(clean), strict=True):
            for key in ("loss", "grad_norm", "tokens_seen"):
                assert row[key] == expected[key]
        left, right = saved_items(run, self.STEPS), saved_items(clean, self.STEPS)
        for part in ("params", "train"):
            assert_same_bits(left[part], right[part])
        assert left["progress"]["batches"] == self.STEPS + 1

    def test_a_damaged_checkpoint_is_passed_over_with_a_word(
        self,
        train: Any,
        config_of: Callable[..., Path],
        texts_with_noise: list[str],
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ):
        choose = Checkpointer.newest_good

        def damaged(self: Checkpointer, at_most: int | None = None) -> CheckpointChoice:
            (tmp_path / "run" / "checkpoints" / "16" / "run.json").unlink()
            return choose(self, at_most)

        monkeypatch.setattr(Checkpointer, "newest_good", damaged)
        done = train(config_of(texts_with_noise))
        assert done.code == 0, done.err
        assert "warning: the checkpoint of step 16 is damaged: run.json is missing" in done.out
        assert "falling back to step 8" in done.out
        assert "going back to step 8, and leaving out batch 21\n" in done.out

    def test_a_resume_leaves_it_out_as_well(
        self, train: Any, config_of: Callable[..., Path], texts_with_noise: Any, tmp_path: Path
    ):
        assert train(config_of(texts_with_noise)).code == 0
        last = saved_items(tmp_path / "run", self.STEPS)
        done = train("--resume", "16")
        assert done.code == 0, done.err
        assert "going back" not in done.out
        again = saved_items(tmp_path / "run", self.STEPS)
        for part in ("params", "train"):
            assert_same_bits(last[part], again[part])


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 4 MB, in memory."""
    disk = tmp_path / "disk"
    disk.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(disk)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"mounting isn't allowed here: {done.stderr.strip()}")
    yield disk
    subprocess.run(["umount", "--lazy", str(disk)], check=True)


class TestFullDisk:
    def test_training_goes_on_and_the_old_checkpoints_stay_good(
        self, train: Any, chomp: Any, config_file: Any, tmp_path: Path, small_disk: Path
    ):
        place = {"save_every": 1, "max_to_keep": 99, "root_dir": str(small_disk / "checkpoints")}
        done = train(config_file(train={"steps": 60}, checkpoint=place))
        assert done.code == 1
        assert "the last state, of step 60, could not be saved" in done.err
        assert "Traceback" not in done.err
        assert "room for " in done.out and "checkpoint.max_to_keep: 99" in done.out
        assert "checkpoint of step 60 not saved: " in done.out
        assert "finished   after step 60 of 60" in done.out
        done = chomp("checkpoints", "verify", tmp_path / "run")
        assert done.code == 0
        assert len(done.out.splitlines()) > 5
        # Later ones may fit again: their sizes differ a little.
        assert "step 5: good" in done.out and "step 60" not in done.out
        # Once there is room, the run goes on from the last good one.
        for step in range(1, 6):
            shutil.rmtree(small_disk / "checkpoints" / str(step))
        assert train("--resume", "latest", "-o", "checkpoint.max_to_keep=2").code == 0
        assert "step 60: good" in chomp("checkpoints", "verify", tmp_path / "run").out

    def test_too_small_a_disk_is_refused_at_the_start(
        self, train: Any, config_file: Any, tmp_path: Path, small_disk: Path
    ):
        (small_disk / "other").write_bytes(bytes(3_500_000))
        place = {"root_dir": str(small_disk / "checkpoints")}
        done = train(config_file(checkpoint=place))
        assert done.code == 2
        assert "no room for two checkpoints" in done.err and "checkpoint.root_dir" in done.err
        assert "compiled" not in done.out
        (small_disk / "other").unlink()
        assert train(config_file(checkpoint=place)).code == 0

    def test_a_full_run_folder_is_refused_and_keeps_what_it_has(
        self, chomp: Any, config_file: Any, tmp_path: Path, small_disk: Path, read_rows: Any
    ):
        run = small_disk / "run"
        # The checkpoints have room: it is the small files that have none.
        config = config_file(checkpoint={"root_dir": str(tmp_path / "checkpoints")})
        full = small_disk / "other"
        start = ["train", config, "--run-dir", run]

        def fill() -> None:
            full.write_bytes(bytes(shutil.disk_usage(small_disk).free))

        fill()
        done = chomp(*start)
        assert done.code == 2
        assert "can't be written (No space left on device); make room" in done.err
        full.unlink()
        assert chomp(*start).code == 0
        before = files_of(run)
        fill()
        done = chomp(*start, "--resume", "latest", "-o", "train.steps=6")
        assert done.code == 2
        assert f"{run / 'config_resolved.json'} can't be written" in done.err
        after = files_of(run)
        # The log and the record of the starts may have grown.
        for name in before.keys() - {"train.log", "run.json", "heartbeat"}:
            assert after[name] == before[name], name
        full.unlink()
        assert chomp(*start, "--resume", "latest", "-o", "train.steps=6").code == 0
        assert [row["step"] for row in read_rows(run)] == [1, 2, 3, 4, 5, 6]

    def test_lines_without_room_come_back_from_the_checkpoint_after_a_kill(
        self, chomp: Any, config_file: Any, tmp_path: Path, small_disk: Path, read_rows: Any
    ):
        """The run folder's disk is full, that of the checkpoints isn't."""
        places = {"root_dir": str(tmp_path / "checkpoints"), "save_every": 150}
        config = config_file(train={"steps": 300}, checkpoint=places)
        run, full = small_disk / "run", small_disk / "other"
        assert (
            chomp(
                "train",
                config,
                "--run-dir",
                tmp_path / "roomy",
                "-o",
                f"checkpoint.root_dir={tmp_path / 'own'}",
            ).code
            == 0
        )

        def fill() -> None:
            while not (run / "metrics.jsonl").exists():
                time.sleep(0.01)
            full.write_bytes(bytes(shutil.disk_usage(small_disk).free))

        filling = threading.Thread(target=fill)
        filling.start()
        done = chomp("train", config, "--run-dir", run)
        filling.join()
        # Its end couldn't write the lines either: as if it had been killed.
        assert "a resume brings them back" in done.out
        short = (run / "ledger.jsonl").read_bytes().count(b"\n")  # the last may be cut off
        assert short < 300
        # The copy from which a resume goes on exactly, whichever of its checkpoints it is.
        full.unlink()
        done = chomp("train", config, "--run-dir", run, "--resume", "latest")
        assert done.code == 0, done.err
        assert "line(s) that had no room are brought back" in done.out
        for name in ("metrics.jsonl", "ledger.jsonl"):
            there, other = (read_rows(folder / name) for folder in (run, tmp_path / "roomy"))
            assert unmeasured(there) == unmeasured(other), name

    def test_lines_that_nobody_has_are_counted(self, train: Any, config_file: Any, tmp_path: Path):
        config = config_file()
        assert train(config).code == 0
        ledger = tmp_path / "run" / "ledger.jsonl"
        lines = ledger.read_text().splitlines(keepends=True)
        ledger.write_text("".join(lines[:2] + lines[4:]))
        done = train(config, "--resume", "latest", "-o", "train.steps=6")
        assert f"{ledger}: 2 of its 5 lines up to step 4 are lost" in done.out

    @pytest.mark.slow
    def test_disks_that_are_full_at_many_moments_change_nothing_in_the_end(self, small_disk: Path):
        script = Path(__file__).parents[1] / "scripts" / "full_disk.py"
        config = Path(__file__).parents[1] / "configs" / "quickstart.yaml"
        done = subprocess.run(
            [sys.executable, script, config, "--small"], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        assert done.stdout.count("| equal |") == 7


def config_data(path: Path) -> dict[str, Any]:
    return yaml.safe_load(path.read_text())["data"]


class TestDryRun:
    def test_writes_nothing_and_prints_the_table(
        self, chomp: Any, config_file: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ):
        here = tmp_path / "here"
        here.mkdir()
        monkeypatch.chdir(here)
        wandb = {"logging": {"wandb": {"enabled": True}}, "optim": {"name": "muon"}}
        config = config_file(**wandb)
        for where in ([], ["--run-dir", here / "run"]):
            done = chomp("train", config, *where, "--dry-run")
            assert done.code == 0, done.err
            assert list(here.iterdir()) == []
        lines = [" ".join(line.split()) for line in done.out.splitlines()]
        assert "parameter shape size update" in lines
        assert "embed.weight 384 x 16 6,144 adamw" in lines
        assert "lm_head.weight 384 x 16 6,144 muon" in lines
        for start in ("parameters 12,288", "compile ", "first step", "memory peak"):
            assert any(line.startswith(start) for line in lines), start
        assert "tokens per step 256" in lines
        assert "tokens planned 1,024" in lines

    def test_refuses_what_a_run_would(self, chomp: Any, config_file: Any):
        done = chomp("train", config_file(data={"files": ["nowhere/*.txt"]}), "--dry-run")
        assert done.code == 2
        assert "data.files" in done.err


class TestOptions:
    def test_without_jit_the_run_is_the_same(
        self, train: Any, chomp: Any, config_file: Any, tmp_path: Path, read_rows: Any
    ):
        assert train(config_file()).code == 0
        other = tmp_path / "eager"
        done = chomp("train", config_file(), "--run-dir", other, "-o", "train.jit=false")
        assert done.code == 0, done.err
        pairs = zip(read_rows(tmp_path / "run"), read_rows(other), strict=True)
        for compiled, eager in pairs:
            assert eager["loss"] == pytest.approx(compiled["loss"], rel=1e-5)
            assert eager["tokens_seen"] == compiled["tokens_seen"]

    @pytest.mark.parametrize("steps", [7, 12])
    def test_profile_writes_a_trace(self, train: Any, config_file: Any, tmp_path: Path, steps: int):
        done = train(config_file(train={"steps": steps, "profile": True}))
        assert done.code == 0, done.err
        traces = list((tmp_path / "run" / "profile").rglob("*.xplane.pb"))
        assert len(traces) == 1
        assert traces[0].stat().st_size > 1000

    @pytest.mark.skipif(jax.default_backend() != "cpu", reason="there is an accelerator")
    def test_a_cpu_must_be_allowed(self, train: Any, config_file: Any, tmp_path: Path):
        config = config_file(train={"allow_cpu": False})
        done = train(config)
        assert done.code == 2
        assert "train.allow_cpu" in done.err
        # The folder is still free for the corrected start.
        assert train(config, "-o", "train.allow_cpu=true").code == 0

    def test_some_checkpoints_are_kept_for_good(self, train: Any, config_file: Any, tmp_path: Path):
        kept = {"save_every": 1, "max_to_keep": 1, "keep_every": 3}
        assert train(config_file(train={"steps": 7}, checkpoint=kept)).code == 0
        assert saved_steps(tmp_path / "run") == [3, 6, 7]

    def test_only_so_many_checkpoints_are_kept(self, train: Any, config_file: Any, tmp_path: Path):
        assert train(config_file(checkpoint={"save_every": 1, "max_to_keep": 2})).code == 0
        assert saved_steps(tmp_path / "run") == [3, 4]
