"""Signals to runs, as a user sends them: real processes, hit in a moment that the heartbeat tells.

The runs of a chain go on where the one before was stopped; chains run side by side.
"""

import json
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

from chomp.checkpoint.archive import Archive
from chomp.history.heartbeat import Beat, Phase, read_heartbeat
from chomp.history.record import EventKind, Record, read_record
from chomp.proof.verdict import MEASURED

STEPS = 12
PATIENCE = 240
Rows = Callable[[Path], list[dict[str, Any]]]
# Each step in rows of several; evaluations long enough to be hit; whole documents in rows, so
# that rows differ in how full they are.
SECTIONS = {
    "train": {
        "steps": STEPS,
        "eval_every": 4,
        "generate_every": 4,
        "log_every": 3,
        "generate_max_tokens": 64,
    },
    "data": {"packing_mode": "bin", "packing_buffer_docs": 8, "max_eval_samples": 60},
    "checkpoint": {"save_every": 5, "async_save": False},
}


@dataclass
class Run:
    """A run folder and the processes that train in it."""

    config: Path
    folder: Path
    start_process: Callable[..., subprocess.Popen[str]]
    codes: list[int] = field(default_factory=list)
    finished: list[int] = field(default_factory=list)
    """The last finished step at each end, as the heartbeat has it."""
    unfinished: list[list[str]] = field(default_factory=list)
    """What the newest checkpoint left to a resume, at each end."""

    @property
    def archive(self) -> Archive:
        return Archive(self.folder / "checkpoints")

    def start(self, *options: object) -> None:
        resume = ["--resume", "latest"] if self.folder.exists() else []
        self.process = self.start_process(
            "train", self.config, "--run-dir", self.folder, *resume, *options
        )

    def beat(self) -> Beat | None:
        """The heartbeat of the process that runs now; None before it has one."""
        beat = read_heartbeat(self.folder / "heartbeat")
        return beat if beat and beat.pid == self.process.pid else None

    def wait_for(self, *phases: Phase, step: int = 0) -> Beat:
        """Wait until the run is in one of these phases with so many finished steps."""
        patience = time.monotonic() + PATIENCE
        while self.process.poll() is None and time.monotonic() < patience:
            beat = self.beat()
            if beat and beat.phase in phases and beat.finished >= step:
                return beat
            time.sleep(0.0005)
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
        self.start()
        self.send(number, phase, step)
        self.end()

    def record(self) -> Record:
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
        (signal.SIGTERM, Phase.SAVING, 5),
        (signal.SIGTERM, Phase.TRAINING, 7),
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
        stopped.start()
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


def unmeasured(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{k: v for k, v in row.items() if k not in MEASURED} for row in rows]


class TestStop:
    """Runs that are stopped in all phases, and resumed each time."""

    def test_exit_codes(self, megalodon: Run, dummy: Run):
        assert megalodon.codes == [143, 130, 143, 143, 0]
        assert dummy.codes == [143, 130, 143, 143, 0]

    def test_the_last_finished_step_is_the_checkpoint(self, stopped: Run):
        starts = stopped.record().starts
        assert [start.last_step for start in starts] == stopped.finished
        assert [start.from_step for start in starts] == [0, *stopped.finished[:-1]]
        assert [start.replayed_steps for start in starts] == [0] * len(starts)

    def test_the_signals_came_where_they_should(self, megalodon: Run, dummy: Run):
        both = ["evaluate", "sample"]
        assert megalodon.finished == [4, 4, 8, STEPS, STEPS]
        # The checkpoint of a step that was resumed stays, and with it what is made up for.
        assert megalodon.unfinished == [both, both, ["sample"], both, both]
        assert (dummy.finished[:3], dummy.finished[4]) == ([0, 4, 5], STEPS)
        assert dummy.unfinished == [[], ["evaluate"], [], [], []]

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
        assert names == ["SIGTERM", "SIGINT", "SIGTERM", "SIGTERM"]
        assert [start.ended for start in starts] == ["stopped"] * 4 + ["finished"]
