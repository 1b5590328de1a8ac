import logging
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from chomp.run.heartbeat import Heartbeat, Phase
from chomp.run.watchdog import Stall, Watchdog
from chomp.system.console import Console

LIMIT = 0.25


class Watched(Console):
    """A heartbeat with a watchdog, and what was heard of it."""

    def __init__(self, log_file: Path, seconds: float):
        self.log_file = log_file
        self.heartbeat = Heartbeat(log_file.with_name("heartbeat"))
        self.lines: list[str] = []
        self.stalls: list[Stall] = []
        self.watchdog = Watchdog(
            self.heartbeat,
            seconds=seconds,
            log_file=log_file,
            console=self,
            note=self.stalls.append,
        )

    def message(self, text: str) -> None:
        self.lines.append(text)

    def wait_for(self, what: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 20
        while not what():
            assert time.monotonic() < deadline, self.lines
            time.sleep(0.01)


@pytest.fixture
def watch(tmp_path: Path) -> Iterator[Callable[..., Watched]]:
    opened: list[Watched] = []
    log_file = tmp_path / "train.log"
    handler = logging.FileHandler(log_file)
    logging.getLogger().addHandler(handler)

    def start(seconds: float = LIMIT) -> Watched:
        opened.append(Watched(log_file, seconds))
        opened[-1].watchdog.start()
        return opened[-1]

    yield start
    for watched in opened:
        watched.watchdog.close()
    logging.getLogger().removeHandler(handler)
    handler.close()


def stall_here(heartbeat: Heartbeat, released: threading.Event) -> None:
    """The training thread of these tests."""
    heartbeat.enter(Phase.TRAINING, 5)
    released.wait()
    heartbeat.enter(Phase.TRAINING, 6)


@pytest.fixture
def released() -> Iterator[threading.Event]:
    event = threading.Event()
    yield event
    event.set()


def test_a_stalled_thread_is_told_of_once_with_its_stack(
    watch: Callable[..., Watched], released: threading.Event
):
    watched = watch()
    thread = threading.Thread(
        target=stall_here, args=(watched.heartbeat, released), name="the training"
    )
    thread.start()
    watched.wait_for(lambda: len(watched.lines) == 1)
    (line,) = watched.lines
    assert line.startswith("warning: training, step 5: no progress for 0 s (since ")
    assert line.endswith(f"the stacks of all threads are in {watched.log_file}")
    written = watched.log_file.read_text()
    assert "thread the training:" in written
    assert "released.wait()" in written and "in stall_here" in written
    # Again after twice, not before.
    first = watched.stalls[0].seconds
    watched.wait_for(lambda: len(watched.lines) == 2)
    assert LIMIT <= first < 2 * LIMIT <= watched.stalls[1].seconds
    released.set()
    thread.join()
    watched.wait_for(lambda: len(watched.lines) == 3)
    assert "training, step 5: it goes on, after" in watched.lines[2]
    assert [stall.over for stall in watched.stalls] == [False, False, True]


def test_progress_of_any_kind_is_no_stall(watch: Callable[..., Watched]):
    watched = watch(seconds=1)
    end = time.monotonic() + 1.5
    step = 0
    while time.monotonic() < end:
        step += 1
        watched.heartbeat.enter(Phase.TRAINING, step)
        time.sleep(0.02)
    # One long evaluation that shows signs of life.
    end = time.monotonic() + 1.5
    while time.monotonic() < end:
        watched.heartbeat.enter(Phase.EVALUATING, step)
        time.sleep(0.02)
    assert watched.lines == []


def test_hung_work_in_the_background_is_noticed_while_training_goes_on(
    watch: Callable[..., Watched],
):
    watched = watch()

    def train_until_told(text: str) -> None:
        def step() -> bool:
            watched.heartbeat.enter(Phase.TRAINING, 1 + watched.heartbeat.now().step)
            return any(f"saving in the background, step 40: {text}" in x for x in watched.lines)

        watched.wait_for(step)

    with watched.heartbeat.background("saving", 40):
        train_until_told("no progress")
    train_until_told("it goes on")


def test_off_means_no_reports_but_the_heartbeat_stays_alive(watch: Callable[..., Watched]):
    watched = watch(seconds=0)
    turn = watched.heartbeat._reading.turn
    watched.wait_for(lambda: watched.heartbeat._reading.turn > turn)
    assert watched.lines == []


def test_an_ended_run_is_no_stall(watch: Callable[..., Watched]):
    watched = watch()
    watched.heartbeat.close()
    time.sleep(3 * LIMIT)
    assert watched.lines == []


KEEPS_THE_GIL = """
import ctypes, sys
from pathlib import Path
from chomp.run.heartbeat import Heartbeat
from chomp.run.watchdog import Watchdog
from chomp.system.console import Console
log = Path(sys.argv[1])
watchdog = Watchdog(Heartbeat(None), seconds=0.2, log_file=log, console=Console(), note=print)
watchdog.start()
import time
time.sleep(0.5)
def a_step_that_hangs():
    ctypes.PyDLL(None).sleep(2)  # unlike CDLL, this does not release the GIL
a_step_that_hangs()
"""


def test_the_stacks_are_written_even_when_no_thread_can_run(tmp_path: Path):
    log = tmp_path / "train.log"
    subprocess.run([sys.executable, "-c", KEEPS_THE_GIL, log], check=True, capture_output=True)
    assert "a_step_that_hangs" in log.read_text()


NEVER_ENDS = """
import threading
from chomp.run.heartbeat import Heartbeat
from chomp.run.watchdog import Watchdog
from chomp.system.console import Console
hung = threading.Event()
class Hangs(Console):
    def message(self, text):
        print(text, flush=True)
        hung.wait()
Watchdog(Heartbeat(None), seconds=0.1, log_file=None, console=Hangs(), note=print).start()
import time
time.sleep(0.5)
"""


def test_it_does_not_keep_the_process_from_ending():
    """Not even when what it calls hangs."""
    done = subprocess.run(
        [sys.executable, "-c", NEVER_ENDS], capture_output=True, text=True, timeout=20, check=True
    )
    assert "starting, step 0: no progress" in done.stdout
    assert "set logging.log_file" in done.stdout
