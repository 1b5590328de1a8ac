"""Fills the disk of runs at several moments, and compares them with a run that had room.

    python scripts/full_disk.py configs/quickstart.yaml --small > docs/results/full-disks.md

As root, since it mounts disks.

Each run has its folder on a small disk of its own, in memory. Something else fills the disk at a
moment of the run, and gives it free later. The run must go on with a warning, the checkpoints
that are there must stay good, and in the end rows, ledger, samples and final state must be those
of the run that had room. Prints a table in Markdown; ends with 1 if anything is wrong.
"""

import argparse
import errno
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import yaml
from result_page import print_head

from chomp.config import load_config
from chomp.proof.trial import Trial
from chomp.proof.trial_config import trial_values
from chomp.proof.verdict import differences
from chomp.run.heartbeat import Phase, read_heartbeat

STEPS = 40
CHECKPOINTS = 6
"""Size of a disk, in checkpoints."""


class Result(NamedTuple):
    moment: str
    said: list[str]
    """Warnings and errors, as printed."""
    wrong: list[str]


class Disk:
    """A small disk with a run's folder on it."""

    def __init__(self, place: Path, size: int, config: Path):
        place.mkdir()
        subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(place)], check=True
        )
        self.place, self._other = place, place / "something-else"
        self.trial = FullTrial(config, place / "run")

    def fill(self, leave: int = 0) -> None:
        free = shutil.disk_usage(self.place).free
        try:
            self._other.write_bytes(bytes(max(0, free - leave)))
        except OSError as error:  # the run took room meanwhile: the disk is full anyway
            if error.errno != errno.ENOSPC:
                raise

    def free(self) -> None:
        self._other.unlink()

    def close(self) -> None:
        subprocess.run(["umount", "--lazy", str(self.place)], check=True)


class FullTrial(Trial):
    def __init__(self, config: Path, folder: Path):
        super().__init__(config, folder)
        self._output = folder.parent.with_suffix(".out")  # not on the small disk

    def start(self) -> None:
        self.process = self._start((), None)

    @contextmanager
    def held(self, condition: Callable[[], bool]) -> Iterator[None]:
        """Wait until something is so, and suspend the run meanwhile."""
        while not condition():
            if self.process.poll() is not None:
                raise self._failure(self.process)
            time.sleep(0.0002)
        self.process.send_signal(signal.SIGSTOP)
        yield
        self.process.send_signal(signal.SIGCONT)

    def finished(self, step: int) -> Callable[[], bool]:
        def reached() -> bool:
            beat = read_heartbeat(self.folder.heartbeat)
            return bool(beat and beat.pid == self.process.pid and beat.finished >= step)

        return reached

    def writing(self, step: int) -> Callable[[], bool]:
        """A checkpoint is being written, after a step."""
        reached = self.finished(step)
        return lambda: reached() and self._writing()

    def sampling(self) -> bool:
        beat = read_heartbeat(self.folder.heartbeat)
        return bool(beat and beat.pid == self.process.pid and beat.phase is Phase.SAMPLING)

    def end(self) -> int:
        return self.process.wait()

    def said(self) -> list[str]:
        lines = self._output.read_text(encoding="utf-8").splitlines()
        return [line for line in lines if line.startswith(("warning: ", "error: "))]


def full_between(disk: Disk, first: Callable[[], bool], last: Callable[[], bool], leave: int = 0):
    """Run with a disk that is full from one moment to another; yield what is wrong."""
    trial = disk.trial
    with trial.held(first):
        disk.fill(leave)
    with trial.held(last):
        disk.free()
    if code := trial.end():
        yield f"exit code {code}"


def before_the_start(disk: Disk) -> Iterator[str]:
    trial = disk.trial
    disk.fill()
    yield from refused(trial)
    disk.free()
    trial.start()
    trial.end()


def before_a_resume(disk: Disk) -> Iterator[str]:
    trial = disk.trial
    trial.start()
    with trial.held(trial.finished(8)):
        trial.process.send_signal(signal.SIGTERM)
    trial.end()
    before = {path: path.read_bytes() for path in trial.folder.path.glob("*.[yj]*")}
    disk.fill()
    yield from refused(trial)
    for path, content in before.items():
        if not path.read_bytes().startswith(content) and path != trial.folder.record:
            yield f"{path.name} changed"
    disk.free()
    trial.start()
    if code := trial.end():
        yield f"exit code {code}"


def refused(trial: FullTrial) -> Iterator[str]:
    trial.start()
    if (code := trial.end()) != 2:
        yield f"not refused, but exit code {code}"


def before_a_save(disk: Disk) -> Iterator[str]:
    trial = disk.trial
    trial.start()
    # Rows have some room.
    yield from full_between(disk, trial.finished(6), trial.finished(12), leave=200_000)


def during_a_save(disk: Disk) -> Iterator[str]:
    trial = disk.trial
    trial.start()
    yield from full_between(disk, trial.writing(6), trial.finished(14))


def at_rows(disk: Disk) -> Iterator[str]:
    trial = disk.trial
    trial.start()
    yield from full_between(disk, trial.finished(6), trial.finished(25))


def at_samples(disk: Disk) -> Iterator[str]:
    trial = disk.trial
    trial.start()
    # While the first one is made, which takes seconds: its file has no page yet.
    yield from full_between(disk, trial.sampling, trial.finished(14))


def to_the_end(disk: Disk) -> Iterator[str]:
    trial = disk.trial
    trial.start()
    with trial.held(trial.finished(30)):
        disk.fill()
    if (code := trial.end()) != 1:
        yield f"not an error, but exit code {code}"
    disk.free()
    trial.start()
    if code := trial.end():
        yield f"exit code {code}"


class Moment(NamedTuple):
    name: str
    run: Callable[[Disk], Iterator[str]]
    says: str
    """Words that must be in what the run says."""


MOMENTS = [
    Moment("before the start, until it was refused", before_the_start, "can't be written"),
    Moment("before a resume, until it was refused", before_a_resume, "no room for two"),
    Moment("before a save", before_a_save, "not saved: it needs about"),
    Moment("while a save was written", during_a_save, "not saved: No space left on device"),
    Moment("at rows of metrics", at_rows, "metrics.jsonl can't be written"),
    Moment("at a sample", at_samples, "samples.jsonl can't be written"),
    Moment("near the end, until it had failed", to_the_end, "could not be saved"),
]


def tried(moment: Moment, disk: Disk, straight: Trial) -> Result:
    wrong = list(moment.run(disk))
    trial = disk.trial
    said = trial.said()
    if not any(moment.says in line for line in said):
        wrong.append(f"it doesn't say {moment.says!r}")
    archive = trial.checkpoints
    wrong += [
        f"checkpoint of step {s}: {what}" for s in archive.steps() if (what := archive.problem(s))
    ]
    wrong += differences(straight, trial)
    print(f"{moment.name}: {'; '.join(wrong) or 'good'}", file=sys.stderr)
    return Result(moment.name, [line.replace(f"{disk.place}/", "") for line in said], wrong)


def table(results: list[Result]) -> str:
    lines = ["| full | what the run says | in the end |", "|---|---|---|"]
    for result in results:
        said = "<br>".join(dict.fromkeys(f"`{shortened(line)}`" for line in result.said))
        lines.append(f"| {result.moment} | {said} | {'; '.join(result.wrong) or 'equal'} |")
    return "\n".join(lines)


def shortened(line: str) -> str:
    line = re.sub(r"step \d+ not", "step ... not", line)
    return line if len(line) <= 150 else line[:146] + " ..."


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("config", type=Path)
    parser.add_argument("-o", "--override", action="append", default=[])
    parser.add_argument("--only", default="", help="moments with these words in their name")
    parser.add_argument("--small", action="store_true", help="shrink the model")
    options = parser.parse_args()
    config = load_config(options.config, options.override)
    results = []
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        path = work / "config.yaml"
        values = trial_values(config, steps=STEPS, small=options.small)
        path.write_text(yaml.safe_dump(values), encoding="utf-8")
        straight = Trial(path, work / "straight")
        straight.finish()
        newest = straight.checkpoints.complete(straight.checkpoints.steps()[-1])
        assert newest is not None
        for number, moment in enumerate(m for m in MOMENTS if options.only in m.name):
            disk = Disk(work / f"disk-{number}", CHECKPOINTS * newest.bytes, path)
            try:
                results.append(tried(moment, disk, straight))
            finally:
                disk.close()
    print_head("Full disks", "full-disks")
    print(table(results))
    return int(any(result.wrong for result in results))


if __name__ == "__main__":
    sys.exit(main())
