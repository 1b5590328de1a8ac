"""Signals to runs, as a user sends them: real processes, hit in a moment that the heartbeat tells.

The runs of a chain go on where the one before was stopped; chains run side by side.
"""

import json
import os
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import yaml
from fake_hub import FakeHub

from chomp.checkpoint.directory import CheckpointDirectory
from chomp.errors import DataError
from chomp.proof.verdict import MEASURED
from chomp.run.heartbeat import HeartbeatReading, Phase, read_heartbeat
from chomp.run.record import EventKind, RunRecord, read_record
from chomp.system.signals import REPEATED, Signals

STEPS = 12
PATIENCE = 240
TRIES = 5
INTERRUPTS = {Phase.EVALUATING: "evaluate", Phase.SAMPLING: "sample"}
"""What a stop in a phase leaves to the resume."""
pytestmark = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux")
Rows = Callable[[Path], list[dict[str, Any]]]
# Each step in rows of several; evaluations and samples that take much longer than the 20 ms in
# which a stop is heard; whole documents in rows, so that rows differ in how full they are.
SECTIONS = {
    "train": {
        "steps": STEPS,
        "eval_every": 4,
        "generate_every": 4,
        "log_every": 3,
        "generate_max_tokens": 512,
        "generate_temperature": 0.0,  # drawn, an end token may come after a few
    },
    "data": {"packing_mode": "bin", "packing_buffer_docs": 8, "max_eval_samples": 60},
    "checkpoint": {"save_every": 5, "async_save": False, "max_to_keep": 9},
}


@dataclass
class Run:
    """A run folder and the processes that train in it."""

    config: Path
    folder: Path
    start_process: Callable[..., Any]
    codes: list[int] = field(default_factory=list)
    finished: list[int] = field(default_factory=list)
    """The last finished step at each end, as the heartbeat has it."""
    unfinished: list[list[str]] = field(default_factory=list)
    """What the newest checkpoint left to a resume, at each end."""

    @property
    def archive(self) -> CheckpointDirectory:
        return CheckpointDirectory(self.folder / "checkpoints")

    def start(self, *options: object, fresh: bool = False) -> None:
        """Train here, on from where it is; `fresh`: with a Python that has imported nothing."""
        resume = ["--resume", "latest"] if self.folder.exists() else []
        self.process = self.start_process(
            "train", self.config, "--run-dir", self.folder, *resume, *options, fresh=fresh
        )

    def beat(self) -> HeartbeatReading | None:
        """The heartbeat of the process that runs now; None before it has one."""
        beat = read_heartbeat(self.folder / "heartbeat")
        return beat if beat and beat.pid == self.process.pid else None

    def wait_for(self, *phases: Phase, step: int = 0) -> HeartbeatReading:
        """Wait until the run is in one of these phases with so many finished steps."""
        patience = time.monotonic() + PATIENCE
        while self.process.poll() is None and time.monotonic() < patience:
            beat = self.beat()
            if beat and beat.phase in phases and beat.finished >= step:
                return beat
            time.sleep(0.002)
        raise AssertionError(f"no {phases} after step {step}: {self.process.communicate()}")

    def send(self, number: signal.Signals, phase: Phase, step: int = 0) -> None:
        """Send a signal while the run is in this phase, whatever the machine's load."""
        while True:
            self.wait_for(phase, step=step)
            self.process.send_signal(signal.SIGSTOP)
            beat = self.beat()
            hit = beat is not None and beat.phase is phase
            if hit:
                self.process.send_signal(number)
            self.process.send_signal(signal.SIGCONT)
            if hit:
                return

    def end(self) -> str:
        """Wait for the end; return what was printed."""
        out, err = self.process.communicate(timeout=PATIENCE)
        assert "Traceback" not in err, err
        self.codes.append(self.process.returncode)
        beat = read_heartbeat(self.folder / "heartbeat")
        assert beat is not None
        self.finished.append(beat.finished)
        newest = self.archive.newest_good()
        assert newest.rejected == []
        record = self.archive.path(newest.step or 0) / "run.json"
        meta = json.loads(record.read_text())["meta"] if newest.step else {}
        self.unfinished.append(meta["unfinished"]["actions"] if meta else [])
        return out + err

    def stop(self, number: signal.Signals, phase: Phase, step: int = 0) -> None:
        """Stop it in this phase; done again where what it did then was over before it heard."""
        before = self.folder.with_name("before")
        if self.folder.exists():
            shutil.copytree(self.folder, before)
        for _ in range(TRIES):
            self.start()
            self.send(number, phase, step)
            self.end()
            if self.finished[-1] == step and INTERRUPTS.get(phase) in (None, *self.unfinished[-1]):
                break
            for ends in (self.codes, self.finished, self.unfinished):
                ends.pop()
            shutil.rmtree(self.folder)
            if before.exists():
                shutil.copytree(before, self.folder)
        shutil.rmtree(before, ignore_errors=True)

    def record(self) -> RunRecord:
        record = read_record(self.folder / "run.json")
        assert record is not None
        return record


@pytest.fixture(scope="module")
def make_run(
    tmp_path_factory: pytest.TempPathFactory, start_chomp: Any, values: Any
) -> Callable[..., Run]:
    """Make a run of a small model in a folder of its own."""

    def make(backend: str = "megalodon", **sections: Any) -> Run:
        folder = tmp_path_factory.mktemp("signals")
        config = folder / "config.yaml"
        config.write_text(yaml.safe_dump(values(backend, **sections)))
        return Run(config, folder / "run", start_chomp)

    return make


MOMENTS = {
    "megalodon": [
        (signal.SIGTERM, Phase.EVALUATING, 4),
        (signal.SIGINT, Phase.SAMPLING, 4),  # of the resumed run, which makes up for it
        (signal.SIGTERM, Phase.SAMPLING, 8),
        (signal.SIGTERM, Phase.EVALUATING, STEPS),
    ],
    "dummy": [
        (signal.SIGTERM, Phase.COMPILING, 0),
        (signal.SIGINT, Phase.EVALUATING, 4),
        (signal.SIGHUP, Phase.SAVING, 5),
    ],
}


@pytest.fixture(scope="module")
def chains(make_run: Callable[..., Run]) -> Iterator[dict[str, Future[tuple[Run, Run]]]]:
    """For each model a run that is stopped, and one that isn't."""

    def chain(backend: str) -> tuple[Run, Run]:
        straight, stopped = (make_run(backend, **SECTIONS) for _ in range(2))
        straight.start()
        straight.end()
        for stop in MOMENTS[backend]:
            stopped.stop(*stop)
        if backend == "dummy":
            stop_twice(stopped)
        stopped.start(fresh=backend == "dummy")
        if backend == "dummy":
            ask_to_save(stopped)
        stopped.end()
        return straight, stopped

    with ThreadPoolExecutor(2) as pool:
        yield {backend: pool.submit(chain, backend) for backend in MOMENTS}


@pytest.fixture(scope="module", params=list(MOMENTS))
def both(request: pytest.FixtureRequest, chains: Any) -> tuple[Run, Run]:
    return chains[request.param].result()


@pytest.fixture
def straight(both: tuple[Run, Run]) -> Run:
    return both[0]


@pytest.fixture
def stopped(both: tuple[Run, Run]) -> Run:
    return both[1]


@pytest.fixture(scope="module")
def megalodon(chains: Any) -> Run:
    return chains["megalodon"].result()[1]


@pytest.fixture(scope="module")
def dummy(chains: Any) -> Run:
    return chains["dummy"].result()[1]


def stop_twice(run: Run) -> None:
    """Stop while the checkpoint of a stop is written."""
    run.start()
    run.send(signal.SIGTERM, Phase.EVALUATING, 8)
    run.send(signal.SIGTERM, Phase.SAVING, 8)
    run.end()


def ask_to_save(run: Run) -> None:
    # While Python still reads its modules there is nothing to save, but nobody is killed either.
    wait_until(run.process, lambda: is_ignoring(run.process, signal.SIGUSR1))
    run.process.send_signal(signal.SIGUSR1)
    # Before there is a new step; what the run goes on from is known already.
    run.send(signal.SIGUSR1, Phase.STARTING, 5)
    run.send(signal.SIGUSR1, Phase.EVALUATING, STEPS)


def is_ignoring(process: subprocess.Popen[str], number: signal.Signals) -> bool:
    status = Path(f"/proc/{process.pid}/status").read_text()
    mask = next(line for line in status.splitlines() if line.startswith("SigIgn:"))
    return bool(int(mask.split()[1], 16) >> (number - 1) & 1)


def wait_until(process: subprocess.Popen[str], condition: Callable[[], bool]) -> None:
    patience = time.monotonic() + PATIENCE
    while not condition():
        assert process.poll() is None and time.monotonic() < patience
        time.sleep(0.001)


def unmeasured(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{k: v for k, v in row.items() if k not in MEASURED} for row in rows]


class TestStop:
    """Runs that are stopped in all phases, and resumed each time."""

    def test_exit_codes(self, megalodon: Run, dummy: Run):
        assert megalodon.codes == [143, 130, 143, 143, 0]
        assert dummy.codes == [143, 130, 129, -signal.SIGTERM, 0]

    def test_the_last_finished_step_is_the_checkpoint(self, stopped: Run):
        starts = stopped.record().starts
        for before, start in pairwise(starts):
            if before.ended == "stopped":
                assert start.from_step == before.last_step
                assert start.replayed_steps == 0
        assert [start.last_step for start in starts] == stopped.finished

    def test_a_second_signal_ends_it_at_once_and_leaves_the_last_checkpoint_good(self, dummy: Run):
        *_, killed, last = dummy.record().starts
        assert killed.ended == "killed"
        # That of the save before, or of this one if it had just been completed.
        assert last.from_step in (5, 8)
        assert killed.last_step == 8

    def test_a_request_to_save_is_heard_at_any_time_and_the_run_goes_on(self, dummy: Run):
        last = dummy.record().starts[-1]
        saves = [event["step"] for event in last.events if event["kind"] == EventKind.SAVE]
        assert saves == [last.from_step + 1, STEPS]
        assert last.ended == "finished"
        assert last.from_step + 1 in dummy.archive.good_steps()

    def test_the_signals_came_where_they_should(self, megalodon: Run, dummy: Run):
        both = ["evaluate", "sample"]
        assert megalodon.finished == [4, 4, 8, STEPS, STEPS]
        # The checkpoint of a step that was resumed stays, and with it what is made up for.
        assert megalodon.unfinished == [both, both, ["sample"], both, both]
        assert dummy.finished == [0, 4, 5, 8, STEPS]
        assert dummy.unfinished[:3] == [[], ["evaluate"], []]

    def test_rows_ledger_and_samples_are_those_of_an_undisturbed_run(
        self, stopped: Run, straight: Run, read_rows: Rows
    ):
        rows = read_rows(stopped.folder)
        assert unmeasured(rows) == unmeasured(read_rows(straight.folder))
        assert [row["step"] for row in rows] == [3, 4, 6, 8, 9, 12]
        assert [row["step"] for row in rows if "eval_loss" in row] == [4, 8, 12]
        assert len({row["packing_utilization"] for row in rows}) > 1
        ledgers = (read_rows(run.folder / "ledger.jsonl") for run in (stopped, straight))
        assert next(ledgers) == next(ledgers)

    def test_samples_are_those_of_an_undisturbed_run(self, chains: Any, read_rows: Rows):
        straight, stopped = (
            read_rows(run.folder / "samples.jsonl") for run in chains["megalodon"].result()
        )
        assert stopped == straight
        assert [row["step"] for row in stopped] == [4, 8, 12]

    def test_the_final_state_is_that_of_an_undisturbed_run(
        self, stopped: Run, straight: Run, chomp: Any
    ):
        done = chomp("checkpoints", "diff", straight.folder, stopped.folder)
        lines = done.out.splitlines()
        if "sample" in stopped.unfinished[-1]:  # saved before the last sample was drawn
            assert lines
            assert all(line.startswith("data place samples") for line in lines), lines
        else:
            assert done.code == 0, lines

    def test_the_history_names_the_signals(self, dummy: Run):
        starts = dummy.record().starts
        events = [event for start in starts for event in start.events]
        names = [event["signal"] for event in events if event["kind"] == EventKind.STOP]
        assert names == ["SIGTERM", "SIGINT", "SIGHUP"]
        assert [start.ended for start in starts] == ["stopped"] * 3 + ["killed", "finished"]


@pytest.mark.parametrize("number", REPEATED)
class TestRepeatedStops:
    """What a run is sent, perhaps several times, by a terminal that closes or a batch system."""

    @pytest.fixture(autouse=True)
    def handlers(self, number: signal.Signals) -> Iterator[None]:
        numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, *REPEATED)
        before = {each: signal.getsignal(each) for each in numbers}
        signal.signal(number, signal.SIG_DFL)
        yield
        for each, handler in before.items():
            signal.signal(each, handler)

    @pytest.mark.parametrize("then", [signal.SIGHUP, signal.SIGTERM, signal.SIGINT])
    def test_one_asks_for_one_stop_whatever_comes_with_it(
        self, number: signal.Signals, then: signal.Signals
    ):
        """The system sends it to the foreground, the shell to its jobs, init SIGTERM besides."""
        signal.signal(then, signal.SIG_DFL)
        with Signals() as signals:
            for each in (number, then, number):
                os.kill(os.getpid(), each)
            assert signals.stop is number
            assert signals.exit_code == 128 + number

    def test_after_another_stop_it_does_not_end_the_process(self, number: signal.Signals):
        with Signals() as signals:
            os.kill(os.getpid(), signal.SIGTERM)
            os.kill(os.getpid(), number)
            assert signals.exit_code == 143

    def test_it_is_ignored_by_a_run_that_was_started_so(self, number: signal.Signals):
        signal.signal(number, signal.SIG_IGN)
        with Signals() as signals:
            os.kill(os.getpid(), number)
            assert not signals.stop_requested()
        assert signal.getsignal(number) is signal.SIG_IGN


def test_an_interrupt_before_anything_was_done_is_quiet(make_run: Callable[..., Run]):
    run = make_run("dummy")
    run.start(fresh=True)
    wait_until(run.process, lambda: is_ignoring(run.process, signal.SIGUSR1))
    run.process.send_signal(signal.SIGINT)
    assert run.process.communicate(timeout=PATIENCE) == ("", "")
    assert run.process.returncode == -signal.SIGINT
    assert not run.folder.exists()


def test_a_stop_is_heard_while_data_does_not_come(
    make_run: Callable[..., Run],
    chomp: Any,
    read_rows: Rows,
    texts: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
):
    (tmp_path / "set").mkdir()
    for i in range(3):
        lines = (json.dumps({"text": text}) + "\n" for text in texts[i::3])
        (tmp_path / "set" / f"train-0000{i}-of-00003.jsonl").write_text("".join(lines))
    data = {"backend": "hf", "hf_dataset": "me/data", "hf_name": None, "files": []}
    data |= {"shuffle_buffer_size": 8, "grain_prefetch": 1, "max_retries": 99, "timeout_sec": 600}
    run = make_run("dummy", data=data, train={"steps": 400})
    with FakeHub(tmp_path / "set", 0.0, kinds=["mute"]) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
        monkeypatch.setenv("HF_HUB_OFFLINE", "")
        run.start()
        run.wait_for(Phase.TRAINING, Phase.WAITING, step=1)
        hub.fault_share = 1.0
        wait_until(run.process, lambda: bool(hub.faults))
        beat = None
        while beat is None or (beat.phase, beat.finished) != beats_after(run, 0.5):
            beat = run.wait_for(Phase.WAITING)
        run.process.send_signal(signal.SIGTERM)
        run.end()
        assert run.codes == [143]
        assert 0 < run.finished[0] < 400
        assert run.archive.good_steps() == [run.finished[0]]
        hub.fault_share = 0.0
        hub.ended.set()
        run.start()
        run.end()
    straight = ["-o", f"data.hf_dataset={tmp_path / 'set'}"]
    assert chomp("train", run.config, "--run-dir", tmp_path / "straight", *straight).code == 0
    rows, expected = (unmeasured(read_rows(f)) for f in (run.folder, tmp_path / "straight"))
    assert rows == expected


def beats_after(run: Run, seconds: float) -> tuple[Phase, int] | None:
    time.sleep(seconds)
    beat = run.beat()
    return (beat.phase, beat.finished) if beat else None


@pytest.mark.usefixtures("share_programs")
def test_an_action_that_finds_no_data_ends_the_run_saved(
    config_file: Any, corpus: Path, tmp_path: Path, read_rows: Rows, chomp: Any
):
    documents = tmp_path / "texts.jsonl"
    documents.write_bytes(corpus.read_bytes())
    data = SECTIONS["data"] | {"files": [str(documents)]}
    train = SECTIONS["train"] | {"eval_every": 0, "generate_max_tokens": 8}
    config = config_file("megalodon", **SECTIONS | {"data": data, "train": train})
    run, straight = tmp_path / "run", tmp_path / "straight"

    def take_away() -> None:
        """The batches come from the file that is open; a sample opens it anew."""
        patience = time.monotonic() + PATIENCE
        while not ((beat := read_heartbeat(run / "heartbeat")) and beat.phase is Phase.COMPILING):
            assert time.monotonic() < patience
            time.sleep(0.002)
        documents.rename(tmp_path / "away")

    with ThreadPoolExecutor(1) as pool:
        taken = pool.submit(take_away)
        done = chomp("train", config, "--run-dir", run)
        taken.result()
    assert done.code == 2 and str(documents) in done.err and "Traceback" not in done.err
    beat = read_heartbeat(run / "heartbeat")
    assert beat is not None and beat.finished == 4
    assert CheckpointDirectory(run / "checkpoints").good_steps() == [4]
    meta = json.loads((run / "checkpoints" / "4" / "run.json").read_text())["meta"]
    assert meta["unfinished"]["actions"] == ["sample"]
    (tmp_path / "away").rename(documents)
    assert chomp("train", config, "--run-dir", run, "--resume", "latest").code == 0
    assert chomp("train", config, "--run-dir", straight).code == 0
    assert unmeasured(read_rows(run)) == unmeasured(read_rows(straight))


@pytest.mark.parametrize(("minutes", "saved"), [(1e-6, [1, 2, 3, 4]), (1e6, [4])])
def test_minutes_between_checkpoints(
    chomp: Any, config_file: Any, tmp_path: Path, minutes: float, saved: list[int]
):
    keys = {"save_every": 1000, "save_every_minutes": minutes, "max_to_keep": 9}
    assert chomp("train", config_file(checkpoint=keys), "--run-dir", tmp_path / "run").code == 0
    assert CheckpointDirectory(tmp_path / "run" / "checkpoints").good_steps() == saved


def test_work_is_left_behind_for_an_error_that_is_known_meanwhile():
    done = threading.Event()

    def check():
        raise DataError("known")

    try:
        with pytest.raises(DataError, match="known"):
            Signals().unless_stopped(done.wait, check=check)
    finally:
        done.set()
