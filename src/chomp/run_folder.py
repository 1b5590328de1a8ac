"""The folder of a run and the files in it."""

import datetime
import fcntl
import json
import os
import re
import secrets
import shutil
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TextIO

from chomp.errors import DiskError, ResumeError
from chomp.whole_file import replace_text

LOCK = ".lock"
SHARED_TRIES, SHARED_DELAY = 50, 0.2


class RunFolder:
    """Names the files of a run."""

    def __init__(self, path: Path):
        self.path = path
        self.original_config = path / "config_original.yaml"
        self.resolved_config = path / "config_resolved.json"
        self.tokenizer = path / "tokenizer"
        self.samples = path / "samples.jsonl"
        self.ledger = path / "ledger.jsonl"
        self.wandb_id = path / "wandb_id"
        self.record = path / "run.json"
        self.heartbeat = path / "heartbeat"

    def inside(self, name: str) -> Path:
        """Return `name` below the folder; an absolute path stays as it is."""
        return self.path / name

    def holds_run(self) -> bool:
        """Whether a run was started here."""
        return os.path.exists(self.original_config)  # False, no error, for a path that can't be

    def claim(self) -> None:
        """Make the folder for a new run.

        Raises:
            ResumeError: a run is there already, or something that is not a folder.
        """
        if self.holds_run():
            raise ResumeError(
                f"{self.path} already holds a run; add --resume latest to go on with it, "
                "or give another --run-dir"
            )
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ResumeError(
                f"{self.path} can't be made a run folder ({error.strerror}); give another --run-dir"
            ) from error

    def lock(self) -> TextIO:
        """Keep other processes out until the file returned is closed, or this process is gone.

        Raises:
            ResumeError: another process is in the folder, or it can't be written to.
        """
        try:
            file = (self.path / LOCK).open("w")
        except OSError as error:
            raise ResumeError(
                f"{self.path} can't be written to ({error.strerror}); give another --run-dir"
            ) from error
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.close()
            raise ResumeError(
                f"another process is training in {self.path}; wait for its end, or stop it"
            ) from error
        return file

    def mark(self) -> str:
        """Write into the locked folder what tells other processes that they see the same one."""
        text = secrets.token_hex(8)
        (self.path / LOCK).write_text(text)
        return text

    def check_shared(self, mark: str) -> None:
        """Check that this process sees the folder that another one has marked.

        Raises:
            ResumeError: it doesn't.
        """
        for _ in range(SHARED_TRIES):  # a network's file system may show it late
            try:
                if (self.path / LOCK).read_text() == mark:
                    return
            except OSError:
                pass
            time.sleep(SHARED_DELAY)
        raise ResumeError(
            f"{self.path} on {socket.gethostname()} isn't the folder of process 0: all processes "
            "of a run need its folder on a shared file system, at the same path; give such a "
            "--run-dir"
        )

    def require_run(self) -> None:
        """Check that there is a run to resume, be it one that was killed while it started.

        Raises:
            ResumeError: there is none.
        """
        names = ("checkpoints", "train.log")
        traces = [self.original_config, self.record, *map(self.inside, names)]
        if not self.holds_run() and (run := self._run_of_a_checkpoint()):
            raise ResumeError(
                f"{self.path} holds checkpoints, and no run; give its run, {run}; a step of it is "
                "an option (--step, --resume)"
            )
        if not any(map(os.path.exists, traces)):
            if self.path.is_file():
                raise ResumeError(
                    f"{self.path} is a file; a run is a folder: chomp train {self.path} starts one"
                )
            raise ResumeError(
                f"{self.path} holds no run (no {self.original_config.name} there); "
                f"check the path, or start one: chomp train CONFIG --run-dir {self.path}"
            )

    def _run_of_a_checkpoint(self) -> Path | None:
        """Return the run whose checkpoints this folder is, or is among."""
        place = self.path.absolute()
        for folder in (place.parent, place.parent.parent):
            is_inside = place.name == "checkpoints" or place.parent.name == "checkpoints"
            if is_inside and RunFolder(folder).holds_run():
                return folder
        return None

    def read_original(self) -> str:
        """Return the user's own text.

        Raises:
            ResumeError: it is gone or no text.
        """
        try:
            return self.original_config.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise self._spoilt(self.original_config, error) from error

    def read_resolved(self) -> dict[str, Any]:
        """Return the resolved values, without those that were derived from them.

        Raises:
            ResumeError: the file is gone or holds no mapping.
        """
        try:
            values = json.loads(self.resolved_config.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise self._spoilt(self.resolved_config, error) from error
        if not isinstance(values, dict):
            raise self._spoilt(self.resolved_config, "not a mapping")
        return {name: value for name, value in values.items() if name != "derived"}

    def _spoilt(self, path: Path, reason: object) -> ResumeError:
        reason = reason.strerror if isinstance(reason, OSError) else reason
        return ResumeError(
            f"{path} can't be read ({reason}); put it back, or make it anew from the config that "
            f"the run was started with: chomp train CONFIG --run-dir {self.path} --resume latest"
        )

    def keep_tokenizer(self, save: Callable[[Path], None]) -> None:
        """Replace the run's own copy of the tokenizer by what `save` writes to a folder.

        Raises:
            DiskError: it can't be written; nothing is changed.
        """
        draft = self.tokenizer.with_name("tokenizer.tmp")
        try:
            shutil.rmtree(draft, ignore_errors=True)
            save(draft)
            shutil.rmtree(self.tokenizer, ignore_errors=True)
            draft.rename(self.tokenizer)
        except OSError as error:
            shutil.rmtree(draft, ignore_errors=True)
            raise self._unwritable(self.tokenizer, error) from error

    def write_configs(self, original: str, resolved: dict[str, Any]) -> None:
        """Keep the user's own text and the resolved values.

        Raises:
            DiskError: a file can't be written; it is as it was.
        """
        text = json.dumps(resolved, indent=2) + "\n"
        for path, content in (self.resolved_config, text), (self.original_config, original):
            try:
                replace_text(path, content)
            except OSError as error:
                raise self._unwritable(path, error) from error

    def _unwritable(self, path: Path, error: OSError) -> DiskError:
        return DiskError(
            f"{path} can't be written ({error.strerror}); make room on the disk, or give another "
            "--run-dir"
        )


def new_run_path(
    root: Path = Path("runs"), now: datetime.datetime | None = None, name: str = ""
) -> Path:
    """Return a dated path under `root` that doesn't exist yet, with the config's name."""
    now = datetime.datetime.now() if now is None else now
    word = re.sub(r"[^\w.-]+", "-", name).strip("-.")[:60]
    stem = "_".join([now.strftime("%Y-%m-%d_%H-%M-%S"), *[word] * bool(word)])
    candidates = [root / stem, *(root / f"{stem}_{i}" for i in range(1, 1000))]
    return next(path for path in candidates if not path.exists())
