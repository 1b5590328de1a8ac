"""Runs as processes of their own: straight to the end, or killed on the way."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from chomp.checkpoint.directory import UNFINISHED, CheckpointDirectory
from chomp.errors import ChompError
from chomp.proof.kills import Kill, View, is_now
from chomp.proof.layouts import Layout
from chomp.run.heartbeat import read_heartbeat
from chomp.run.run_folder import RunFolder
from chomp.system.plugins import plugin_options

POLL_SECONDS = 0.001
SHOWN_LINES = 12


class Killed(NamedTuple):
    """What became of a kill."""

    kill: Kill
    view: View
    """The run in its last moment."""
    resumes: int
    """The step of the newest good checkpoint, from which it will go on."""

    @property
    def hit(self) -> bool:
        """Whether it came in the moment that it was meant for."""
        return is_now(self.kill, self.view)

    @property
    def replayed(self) -> int:
        """Finished steps that are done again."""
        return max(0, self.view.beat.finished - self.resumes)


class Trial:
    """One run folder, and the processes that train in it.

    Args:
        config: file of the configuration.
        folder: of the run.
    """

    def __init__(self, config: Path, folder: Path):
        self.config, self.folder = config, RunFolder(folder)
        self.archive = CheckpointDirectory(folder / "checkpoints")
        self._resumed = 0
        self._output = folder.with_suffix(".out")

    def finish(self, layout: Layout | None = None, steps: int | None = None) -> None:
        """Train to the end.

        Args:
            layout: devices and processes; None: as the machine and the config have it.
            steps: where the end is; None: where the config says.

        Raises:
            ChompError: the run failed; the message has its last lines.
        """
        overrides = [] if layout is None else layout.overrides
        if steps is not None:
            overrides.append(f"train.steps={steps}")
        options = [word for override in overrides for word in ("-o", override)]
        environment = None if layout is None else layout.environment
        with ExitStack() as running:
            processes = [
                running.enter_context(self._running([*options, *own], environment))
                for own in ([[]] if layout is None else layout.process_options())
            ]
            for process in processes:
                if process.wait():
                    raise self._failure(process)

    def kill(self, kill: Kill) -> Killed | None:
        """Start, and kill when the moment has come; None if the run ended before.

        Raises:
            ChompError: the run failed by itself.
        """
        with self._running() as process:
            while not self._is_now(kill, process):
                if process.poll() is not None:
                    break
                time.sleep(POLL_SECONDS)
            until = time.monotonic() + kill.delay
            while time.monotonic() < until and self._is_now(kill, process):
                time.sleep(max(POLL_SECONDS, kill.delay / 20))
            # Stopped first, so that what it is doing when it is killed is known and not guessed.
            process.send_signal(signal.SIGSTOP)
            if process.returncode is None:
                os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)
            view = self._view(process)
            process.kill()
            process.wait()
            if process.returncode == 0:
                return None
            if process.returncode != -signal.SIGKILL or view is None:
                raise self._failure(process)
        self._resumed = self.archive.newest_good().step or 0
        return Killed(kill, view, self._resumed)

    def rows(self, name: str) -> list[dict[str, Any]]:
        """Return the lines of one of the run's files of JSON lines; none without the file."""
        path = self.folder.path / name
        text = path.read_text(encoding="utf-8") if path.exists() else ""
        return [json.loads(line) for line in text.split("\n") if line]

    def _is_now(self, kill: Kill, process: subprocess.Popen[bytes]) -> bool:
        view = self._view(process)
        return view is not None and is_now(kill, view)

    def _view(self, process: subprocess.Popen[bytes]) -> View | None:
        """Return what can be seen of a process; None before its heartbeat."""
        beat = read_heartbeat(self.folder.heartbeat)
        if beat is None or beat.pid != process.pid:
            return None
        newest = max(self.archive.steps(), default=0)
        return View(beat, self._writing(), newest, self._resumed)

    def _writing(self) -> bool:
        try:
            return any(p.name.startswith(UNFINISHED) for p in self.archive.folder.iterdir())
        except OSError:
            return False

    @contextmanager
    def _running(
        self, options: Sequence[str] = (), environment: Mapping[str, str] | None = None
    ) -> Iterator[subprocess.Popen[bytes]]:
        """Start, and let nothing outlive the block."""
        process = self._start(options, environment)
        try:
            yield process
        finally:
            process.kill()
            process.wait()

    def _start(
        self, options: Sequence[str], environment: Mapping[str, str] | None
    ) -> subprocess.Popen[bytes]:
        more = ["--resume", "latest"] if self.folder.holds_run() else []
        # -P: a file in the current folder must not hide a module, as it doesn't from `chomp`.
        command = [sys.executable, "-P", "-m", "chomp", "train", self.config, *more]
        with self._output.open("ab") as output:
            return subprocess.Popen(
                [*command, "--run-dir", self.folder.path, *options, *plugin_options()],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )

    def _failure(self, process: subprocess.Popen[bytes]) -> ChompError:
        lines = self._output.read_text(encoding="utf-8", errors="replace").splitlines()
        shown = "\n".join(f"  {line}" for line in lines[-SHOWN_LINES:])
        return ChompError(
            f"`chomp train` ended with exit code {process.returncode} without being killed "
            f"(output in {self._output}):\n{shown}"
        )
