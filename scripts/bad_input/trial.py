"""A case tried with the real program: what it said, how it ended, what became of the files."""

import contextlib
import logging
import os
import shutil
import signal
import subprocess
import sysconfig
import tempfile
import time
import traceback
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from click.testing import CliRunner

from bad_input.case import Case

PROGRAM = Path(sysconfig.get_path("scripts")) / "chomp"
SECONDS = 60.0
"""Longest that a wrong input may keep its user waiting, start of Python and JAX included."""
MARKS = ("error: ", "Error: ", "  ", "warning: ", "wandb: ", "Usage: ", "Try '")

CONFIG: dict[str, Any] = {
    "model": {"backend": "dummy", "d_model": 8, "chunk_size": 16},
    "data": {
        "backend": "local_text",
        "local_text": [f"Sentence {i} of a small text, for a small model." for i in range(40)],
        "shuffle_buffer_size": 8,
        "max_eval_samples": 3,
    },
    "train": {
        "steps": 4,
        "batch_size": 1,
        "seq_len": 32,
        "allow_cpu": True,
        "log_every": 1,
        "eval_every": 0,
        "generate_every": 0,
    },
    "optim": {"warmup_steps": 1},
    "checkpoint": {"save_every": 2},
}


# What a run tells of its starts, one that fails after the refusals included.
HISTORY = ("run/run.json", "run/heartbeat")


class Outcome(NamedTuple):
    """What a command left behind."""

    code: int
    err: str
    seconds: float
    lost: list[str]
    """Files that were there before and are gone or changed otherwise than by lines at their end."""
    written: list[str]
    """Files and folders that are new."""


class Bench:
    """Tries cases, each in a folder of its own with a finished run in it."""

    def __init__(self, root: Path):
        self.root, self.run = root, root / "run"
        self.cache = root / "compile_cache"
        path = root / "config.yaml"
        path.write_text(self.config_text({}))
        code, err = _in_process(["train", str(path), "--run-dir", str(self.run)], None)
        if code:
            raise RuntimeError(f"the run to spoil failed: {err}")

    def config_text(self, changes: Any) -> str:
        """Return the working configuration with dotted keys set, as YAML."""
        values = yaml.safe_load(yaml.safe_dump(CONFIG))
        for path, value in {"runtime.compile_cache": str(self.cache), **changes}.items():
            *sections, last = path.split(".")
            inner = values
            for section in sections:
                inner = inner.setdefault(section, {})
            inner[last] = value
        return yaml.safe_dump(values, sort_keys=False, width=1000)

    def try_case(self, case: Case) -> Outcome:
        """Prepare, run and look."""
        place = Path(tempfile.mkdtemp(dir=self.root))
        text = case.change
        if not isinstance(text, str | bytes):
            text = self.config_text(text)
        (place / "config.yaml").write_bytes(text.encode() if isinstance(text, str) else text)
        shutil.copytree(self.run, place / "run", symlinks=True)
        with ExitStack() as held:
            if case.prepare:
                case.prepare(place, held)
            held.enter_context(contextlib.chdir(place))
            before = _contents(place)
            command = [*case.args.split(), *case.words]
            started = time.perf_counter()
            if case.alone:
                code, err = _alone(command, case)
            else:
                code, err = _in_process(command, case.stdin, case.env)
            seconds = time.perf_counter() - started
        after = _contents(place)
        lost = [
            name
            for name, old in before.items()
            if name not in (*case.changes, *HISTORY) and not after.get(name, b"?").startswith(old)
        ]
        written = sorted(set(after) - set(before))
        return Outcome(code, err, seconds, lost, written)


def faults(case: Case, outcome: Outcome) -> list[str]:
    """List what is wrong with an outcome; empty: it is as it should be."""
    says = (case.says,) if isinstance(case.says, str) else case.says
    lines = [] if case.foreign else outcome.err.splitlines()
    found = [f"does not say {text!r}" for text in says if text not in outcome.err]
    if outcome.code != case.code:
        found.append(f"exit code {outcome.code}, not {case.code}")
    if "Traceback" in outcome.err:
        found.append("shows a traceback")
    found += [f"a line of another kind: {line[:80]!r}" for line in lines if not _marked(line)]
    problems = [line for line in lines if line.lower().startswith("error: ")]
    if case.code and not case.foreign and len(problems) != case.lines:
        found.append(f"{len(problems)} lines of errors, not {case.lines}")
    if outcome.lost:
        found.append(f"changed {', '.join(outcome.lost)}")
    if outcome.seconds > SECONDS:
        found.append(f"took {outcome.seconds:.0f} s")
    return found


def _marked(line: str) -> bool:
    return not line or line.startswith(MARKS)


def _contents(place: Path) -> dict[str, bytes]:
    paths = sorted(place.rglob("*"))
    return {
        str(path.relative_to(place)): path.read_bytes() if path.is_file() else b"folder"
        for path in paths
    }


def _in_process(command: list[str], stdin: str | None, env: Any = None) -> tuple[int, str]:
    from chomp.cli import main

    with _own_logging(), _limited():
        runner = CliRunner()
        result = runner.invoke(main, command, input=stdin or "", env=env, prog_name="chomp")
    error = result.exception
    if error is not None and not isinstance(error, SystemExit):
        return 1, result.stderr + "".join(traceback.format_exception(error))
    return result.exit_code, result.stderr


@contextlib.contextmanager
def _own_logging() -> Iterator[None]:
    """Close the log of a command when it has ended, as its process would."""
    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    try:
        yield
    finally:
        logging.captureWarnings(False)
        for handler in root.handlers:
            if handler not in before:
                handler.close()
        root.handlers[:] = before
        root.setLevel(level)


@contextlib.contextmanager
def _limited() -> Iterator[None]:
    """Let a command that hangs fail."""

    def give_up(*_: object) -> None:
        raise TimeoutError(f"no end after {2 * SECONDS:.0f} s")

    before = signal.signal(signal.SIGALRM, give_up)
    signal.setitimer(signal.ITIMER_REAL, 2 * SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _alone(command: list[str], case: Case) -> tuple[int, str]:
    changes = {**os.environ, **case.env}
    environ = {name: value for name, value in changes.items() if value is not None}
    with subprocess.Popen(
        [PROGRAM, *command],
        env=environ,
        stdin=subprocess.PIPE if case.stdin is not None else subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        _, err = process.communicate(case.stdin, timeout=2 * SECONDS)
    code = process.returncode
    return code if code >= 0 else 128 - code, err  # as a shell tells of a signal
