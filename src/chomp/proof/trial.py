"""Runs as processes of their own: straight to the end, or killed on the way."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

from chomp.checkpoint.archive import UNFINISHED, Archive
from chomp.errors import ChompError
from chomp.history.heartbeat import Phase, read_heartbeat
from chomp.proof.kills import Kill, has_come
from chomp.run_folder import RunFolder

POLL_SECONDS = 0.0005


class Killed(NamedTuple):
    """What became of a kill."""

    kill: Kill
    phase: Phase
    """What the run was doing."""
    step: int
    """The last finished step."""
    resumed: int
    """The step of the newest good checkpoint then."""


class Trial:
    """One run folder, and the processes that train in it.

    Args:
        config: file of the configuration.
        folder: of the run.
    """

    def __init__(self, config: Path, folder: Path):
        self.config, self.folder = config, RunFolder(folder)
        self.archive = Archive(folder / "checkpoints")
        self._starts = 0
        self._output = folder.with_suffix(".out")

    def finish(self) -> None:
        """Train to the end.

        Raises:
            ChompError: the run failed; the message has its last lines.
        """
        process = self._start()
        if process.wait():
            raise self._failure(process)

    def kill(self, kill: Kill) -> Killed | None:
        """Start, and kill when the moment has come; None if the run ended before.

        Raises:
            ChompError: the run failed by itself.
        """
        process = self._start()
        while process.poll() is None:
            beat = read_heartbeat(self.folder.heartbeat)
            if beat and has_come(kill, beat, start=self._starts, writing=self._writing()):
                time.sleep(kill.delay)
                process.send_signal(signal.SIGKILL)
                process.wait()
                break
            time.sleep(POLL_SECONDS)
        if process.returncode == 0:
            return None
        if process.returncode != -signal.SIGKILL:
            raise self._failure(process)
        beat = read_heartbeat(self.folder.heartbeat)
        assert beat is not None
        return Killed(kill, beat.phase, beat.finished, self.archive.newest_good().step or 0)

    def rows(self, name: str) -> list[dict[str, Any]]:
        """Return the lines of one of the run's files of JSON lines."""
        text = (self.folder.path / name).read_text(encoding="utf-8")
        return [json.loads(line) for line in text.split("\n") if line]

    def _writing(self) -> bool:
        try:
            return any(p.name.startswith(UNFINISHED) for p in self.archive.folder.iterdir())
        except OSError:
            return False

    def _start(self) -> subprocess.Popen[bytes]:
        self._starts += 1
        more = ["--resume", "latest"] if self._starts > 1 and self.folder.holds_run() else []
        command = [sys.executable, "-m", "chomp", "train", self.config, *more]
        with self._output.open("ab") as output:
            return subprocess.Popen(
                [*command, "--run-dir", self.folder.path],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )

    def _failure(self, process: subprocess.Popen[bytes]) -> ChompError:
        lines = self._output.read_text(encoding="utf-8", errors="replace").splitlines()
        shown = "\n".join(f"  {line}" for line in lines[-12:])
        return ChompError(
            f"`chomp train` ended with exit code {process.returncode} without being killed "
            f"(output in {self._output}):\n{shown}"
        )
