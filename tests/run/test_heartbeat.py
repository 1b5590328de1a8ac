import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from chomp.run.heartbeat import PHASES, SIZE, Heartbeat, Phase, PhaseTimes, read_heartbeat


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "heartbeat"


def test_another_process_would_read_what_this_one_does(path: Path):
    before = time.time()
    heartbeat = Heartbeat(path, start=3)
    heartbeat.enter(Phase.TRAINING, 7)
    heartbeat.finished(6)
    beat = read_heartbeat(path)
    assert beat is not None
    assert (beat.pid, beat.start) == (os.getpid(), 3)
    assert (beat.phase, beat.step, beat.finished) == (Phase.TRAINING, 7, 6)
    assert before - 0.1 <= beat.since <= beat.times.marked <= beat.alive <= time.time()


def test_each_phase_gets_its_time(path: Path):
    """All of it: from the command's begin, which was before the heartbeat's."""
    begun = time.perf_counter() - 5
    heartbeat = Heartbeat(path, started=begun)
    heartbeat.enter(Phase.TRAINING, 1)
    time.sleep(0.05)
    with heartbeat.during(Phase.EVALUATING):
        time.sleep(0.1)
        inside = heartbeat.now()
    time.sleep(0.02)
    least = time.perf_counter() - begun
    beat = heartbeat.now()
    most = time.perf_counter() - begun
    assert (inside.phase, inside.step) == (Phase.EVALUATING, 1)
    assert beat.phase is Phase.TRAINING
    seconds = beat.seconds_until(beat.alive)
    assert seconds[Phase.STARTING] >= 5
    assert seconds[Phase.EVALUATING] >= 0.1
    assert seconds[Phase.TRAINING] >= 0.07
    assert least - 0.005 <= sum(seconds.values()) <= most + 0.005


def test_the_present_phase_is_counted_up_to_now():
    times = PhaseTimes(dict.fromkeys(PHASES, 0.0), 100.0).counted(Phase.TRAINING, 3.0, 103.0)
    assert times.marked == 103.0
    assert times.until(105.0, Phase.TRAINING)[Phase.TRAINING] == 5.0
    assert times.until(105.0, Phase.SAVING)[Phase.SAVING] == 2.0
    assert times.until(99.0, Phase.SAVING) == times.seconds  # the clock was set back


def test_the_phase_before_returns_after_an_error(path: Path):
    heartbeat = Heartbeat(path)
    heartbeat.enter(Phase.TRAINING, 4)
    with pytest.raises(ZeroDivisionError), heartbeat.during(Phase.SAVING):
        raise ZeroDivisionError
    assert heartbeat.now().phase is Phase.TRAINING


def test_entering_the_same_again_is_a_sign_of_life_but_no_new_beginning(path: Path):
    heartbeat = Heartbeat(path)
    heartbeat.enter(Phase.EVALUATING, 4)
    first, beats = heartbeat.now(), heartbeat.beats
    time.sleep(0.01)
    heartbeat.enter(Phase.EVALUATING, 4)
    assert heartbeat.now().since == first.since
    assert heartbeat.beats > beats


# A process that never stops entering phases, with numbers that belong together.
BEATING = """
import sys
from pathlib import Path
from chomp.run.heartbeat import Heartbeat, Phase
heartbeat = Heartbeat(Path(sys.argv[1]), start=1)
print("begun", flush=True)
step = 0
while True:
    step += 1
    heartbeat.enter(Phase.TRAINING if step % 2 else Phase.WAITING, step)
    heartbeat.finished(step)
"""


def test_it_is_whole_whenever_it_is_read_and_after_sigkill(path: Path):
    for attempt in range(3):
        process = subprocess.Popen(
            [sys.executable, "-c", BEATING, path], stdout=subprocess.PIPE, text=True
        )
        assert process.stdout is not None and process.stdout.readline() == "begun\n"
        last = 0
        deadline = time.monotonic() + 0.5 + 0.1 * attempt
        while time.monotonic() < deadline or last < 100:
            beat = read_heartbeat(path)
            assert beat is not None
            assert beat.finished in (beat.step, beat.step - 1)
            assert beat.step >= last
            last = beat.step
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
        beat = read_heartbeat(path)
        assert beat is not None and beat.pid == process.pid
        assert beat.finished in (beat.step, beat.step - 1)
        assert beat.step >= last
        assert beat.phase is (Phase.TRAINING if beat.step % 2 else Phase.WAITING)


def test_a_torn_record_leaves_the_one_before(path: Path):
    """Of two records one is always whole; whatever is broken in both is no heartbeat."""
    heartbeat = Heartbeat(path)
    heartbeat.enter(Phase.TRAINING, 1)
    older = path.read_bytes()
    heartbeat.enter(Phase.TRAINING, 2)
    newer = path.read_bytes()
    changed = [i for i in range(SIZE) if older[i] != newer[i]]
    for cut in range(changed[0], changed[-1] + 1):
        path.write_bytes(newer[:cut] + older[cut:])
        beat = read_heartbeat(path)
        assert beat is not None and beat.step in (1, 2)
        assert (beat.phase, beat.finished) == (Phase.TRAINING, 0)


@pytest.mark.parametrize("size", [0, 10, 300, SIZE])
def test_no_heartbeat_is_none(path: Path, size: int):
    assert read_heartbeat(path) is None
    path.write_bytes(random.Random(size).randbytes(size))
    assert read_heartbeat(path) is None
    assert read_heartbeat(path.parent) is None


def test_the_file_has_its_bytes_on_disk_from_the_beginning(path: Path):
    """A hole would have to be filled later, when the disk may be full: SIGBUS."""
    path.write_bytes(b"old")
    Heartbeat(path)
    assert path.stat().st_size == SIZE
    descriptor = os.open(path, os.O_RDONLY)
    assert os.lseek(descriptor, 0, os.SEEK_HOLE) == SIZE
    os.close(descriptor)


def test_without_a_file_it_works_in_memory(tmp_path: Path):
    for path in (None, tmp_path / "missing" / "heartbeat"):
        heartbeat = Heartbeat(path)
        heartbeat.enter(Phase.SAVING, 9)
        assert heartbeat.now().step == 9
        assert (heartbeat.problem is None) is (path is None)
        heartbeat.close()
    assert "No such file" in str(heartbeat.problem)


# Writing ends after a few bytes, as on a full disk.
NO_ROOM = """
import resource, sys
from pathlib import Path
from chomp.run.heartbeat import Heartbeat, Phase
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
heartbeat = Heartbeat(Path(sys.argv[1]))
heartbeat.enter(Phase.TRAINING, 7)
print(heartbeat.now().step, heartbeat.problem)
"""


def test_without_room_on_the_disk_it_works_in_memory(path: Path):
    done = subprocess.run(
        [sys.executable, "-c", NO_ROOM, path], capture_output=True, text=True, check=True
    )
    assert done.stdout == f"7 {path} can't be made (No space left on device)\n"


def test_after_closing_it_has_ended_and_still_answers(path: Path):
    heartbeat = Heartbeat(path)
    heartbeat.close()
    beat = read_heartbeat(path)
    assert beat is not None and beat.phase is Phase.ENDED
    assert heartbeat.now().phase is Phase.ENDED


def test_threads_don_t_lose_time(path: Path):
    """The watchdog reads while the training thread enters phases."""
    heartbeat = Heartbeat(path)
    stop = threading.Event()

    def read():
        while not stop.is_set():
            heartbeat.now()

    reader = threading.Thread(target=read)
    reader.start()
    before = time.perf_counter()
    heartbeat.enter(Phase.TRAINING, 0)
    begun = time.perf_counter()
    for step in range(5000):
        heartbeat.enter(Phase.TRAINING, step)
        heartbeat.enter(Phase.WAITING, step)
    ending = time.perf_counter()
    heartbeat.enter(Phase.CLOSING)
    ended = time.perf_counter()
    stop.set()
    reader.join()
    seconds = heartbeat.now().times.seconds
    counted = seconds[Phase.TRAINING] + seconds[Phase.WAITING]
    # However long another process keeps this one waiting between two lines.
    assert ending - begun - 1e-3 <= counted <= ended - before + 1e-3


def test_background_work_is_known_while_it_goes_on(path: Path):
    heartbeat = Heartbeat(path)
    with heartbeat.background("saving", 3), heartbeat.background("saving", 4):
        assert [work.step for work in heartbeat.work().values()] == [3, 4]
    assert heartbeat.work() == {}


def test_it_costs_microseconds(path: Path):
    """Twice a step; the bound is loose since test machines are busy, the best of many is not."""
    heartbeat = Heartbeat(path)
    best = float("inf")
    for _ in range(50):
        start = time.perf_counter()
        for step in range(200):
            heartbeat.enter(Phase.TRAINING, step)
        best = min(best, (time.perf_counter() - start) / 200)
    assert best < 10e-6


def test_a_file_that_somebody_cuts_short_or_removes_ends_nothing(tmp_path: Path):
    """Mapped, it would end the process by SIGBUS."""
    path = tmp_path / "heartbeat"
    heartbeat = Heartbeat(path)
    for size in (0, 1, 100, 512, 700):
        os.truncate(path, size)
        heartbeat.enter(Phase.TRAINING, size)
        heartbeat.finished(size)
        beat = read_heartbeat(path)
        assert beat is not None and (beat.phase, beat.finished) == (Phase.TRAINING, size)
    path.unlink()
    heartbeat.finished(9)
    heartbeat.close()


def test_pipes_are_no_heartbeats(tmp_path: Path):
    os.mkfifo(tmp_path / "heartbeat")
    assert "can't be made" in (Heartbeat(tmp_path / "heartbeat").problem or "")
