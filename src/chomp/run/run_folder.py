"""The folder of a run and the files in it."""

import datetime
import itertools
import json
import os
import re
import shutil
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from chomp.errors import DiskError, ResumeError
from chomp.run_files import RUN_FILES, RUN_PLACES
from chomp.system.atomic_file import remedy, replace_text
from chomp.system.folder_lock import LOCK, FolderLock
from chomp.system.json_text import parse_json
from chomp.system.path_limits import LONGEST, check_path, shortened, why

SHARED_TRIES, SHARED_DELAY = 50, 0.2


class RunFolder:
    """Names the files of a run.

    Args:
        path: the folder.
        numbered: whether a new run takes the next free path, `PATH_1` and so on, where this one is
            taken.
    """

    def __init__(self, path: Path, *, numbered: bool = False):
        self.path, self._numbered = path, numbered
        self.original_config = path / "config_original.yaml"
        self.resolved_config = path / "config_resolved.json"
        self.tokenizer = path / "tokenizer"
        self.samples = path / "samples.jsonl"
        self.ledger = path / "ledger.jsonl"
        self.record = path / "run.json"
        self.heartbeat = path / "heartbeat"

    def inside(self, name: str) -> Path:
        """Return `name` below the folder; an absolute path stays as it is."""
        return self.path / name

    def holds_run(self) -> bool:
        """Whether a run was started here."""
        return os.path.exists(self.original_config)  # False, no error, for a path that can't be

    def claim(self) -> "RunFolder":
        """Make the folder for a new run, and return it.

        Raises:
            ResumeError: a run is there already, or something that is not a folder.
        """
        if not self._numbered:
            self._refuse_run()
        if other := self.run_around():
            raise ResumeError(
                f"{shortened(self.path)} is inside of the run {other}, which may move or delete "
                "it; give another --run-dir"
            )
        try:
            check_path(self.path / LONGEST)  # else found after training
            if not self._numbered:
                self.path.mkdir(parents=True, exist_ok=True)
                return self
            for number in itertools.count():
                path = self.path.with_name(f"{self.path.name}_{number}") if number else self.path
                try:
                    path.mkdir(parents=True)  # of several that try, one makes it
                except FileExistsError:
                    continue
                return RunFolder(path)
        except (OSError, ValueError) as error:
            raise ResumeError(
                f"{shortened(self.path)} can't be made a run folder ({why(error)}); give another "
                "--run-dir"
            ) from error
        raise AssertionError  # the numbers don't end

    def run_around(self) -> Path | None:
        """Return the folder of a run that this one is in, or would be; None without one."""
        try:
            around = self.path.resolve().parents
        except (OSError, RuntimeError, ValueError):  # making it will tell
            return None
        return next((folder for folder in around if RunFolder(folder).holds_run()), None)

    def lock(self) -> FolderLock:
        """Keep other processes out until the lock is closed, or this process is gone.

        Raises:
            ResumeError: another process is in the folder, or it can't be written to.
        """
        try:
            return FolderLock(self.path)
        except BlockingIOError as error:
            raise ResumeError(
                f"another process is training in {self.path}; wait for its end, or stop it"
            ) from error
        except OSError as error:
            raise ResumeError(
                f"{self.path} can't be written to ({error.strerror}); give another --run-dir"
            ) from error

    def check_free(self, lock: FolderLock) -> None:
        """Check that a new run, which has the lock, overwrites nothing.

        Raises:
            ResumeError: a run is there by now, or files that aren't chomp's.
        """
        self._refuse_run()
        if lock.was_there:  # of a start that was refused
            return
        for path in (self.path / place for place in RUN_PLACES if place.name != LOCK):
            if os.path.lexists(path):
                raise ResumeError(
                    f"{path} is there already, and not of a run of chomp's: it would be "
                    "overwritten; move it away, or give another --run-dir"
                )

    def _refuse_run(self) -> None:
        if self.holds_run():
            raise ResumeError(
                f"{self.path} already holds a run; add --resume latest to go on with it, "
                "or give another --run-dir"
            )

    def check_shared(self, mark: str) -> None:
        """Check that this process sees the folder whose lock file has this text.

        Raises:
            ResumeError: it doesn't.
        """
        for _ in range(SHARED_TRIES):  # a network's file system may show it late
            try:
                if (self.path / LOCK).read_text() == mark:
                    return
            except (OSError, UnicodeDecodeError):
                pass
            time.sleep(SHARED_DELAY)
        raise ResumeError(
            f"{self.path} on {socket.gethostname()} isn't the folder of process 0: all processes "
            "of a run need its folder on a shared file system, at the same path; give such a "
            "--run-dir"
        )

    def require_run(self, *, or_empty: bool = False) -> None:
        """Check that there is a run to resume, be it one that was killed while it started.

        Args:
            or_empty: accept an empty folder, which a start may leave that is killed at once.

        Raises:
            ResumeError: there is none.
        """
        names = ("checkpoints", "train.log", LOCK)
        traces = [self.original_config, self.record, *map(self.inside, names)]
        if or_empty and self.path.is_dir() and not any(self.path.iterdir()):
            return
        self._check_files()
        if not self.holds_run() and (run := self._run_of_a_checkpoint()):
            raise ResumeError(
                f"{self.path} holds checkpoints, and no run; give its run, {run}; a step of it is "
                "an option (--step, --resume)"
            )
        if not any(map(os.path.exists, traces)):
            if self.path.is_file():
                raise ResumeError(f"{self.path} is a file; a run is a folder{self._meant()}")
            raise ResumeError(
                f"{self.path} holds no run (no {self.original_config.name} there); "
                f"check the path, or start one: chomp train CONFIG --run-dir {self.path}"
            )

    def _check_files(self) -> None:
        """Check that nothing will wait for a pipe, read a device for ever, or lines of a folder."""
        inside = self.tokenizer.iterdir() if self.tokenizer.is_dir() else ()
        for path in (*map(self.inside, RUN_FILES), *inside):
            if path.exists() and not (path.is_file() or path.is_dir()):
                raise ResumeError(
                    f"{path} is a pipe or a device, and not of a run of chomp's; move it away"
                )
            if path.suffix == ".jsonl" and path.is_dir():
                raise ResumeError(f"{path} is a folder, and not of a run of chomp's; move it away")

    def _meant(self) -> str:
        """Say what somebody who gave a file as a run may have meant."""
        if RunFolder(self.path.parent).holds_run():
            return f": give {self.path.parent}"
        is_config = self.path.suffix in (".yaml", ".yml")
        return f": chomp train {self.path} starts one" if is_config else ""

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
            values = parse_json(self.resolved_config.read_text(encoding="utf-8"))
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

    @contextmanager
    def replace_tokenizer(self) -> Iterator[Path]:
        """Give a folder to save a tokenizer in, which then becomes the run's own copy.

        Raises:
            DiskError: it can't be written; nothing is changed.
        """
        draft = self.tokenizer.with_name("tokenizer.tmp")
        try:
            _remove(draft)
            yield draft
            _remove(self.tokenizer)
            draft.rename(self.tokenizer)
        except OSError as error:
            _remove(draft)
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

    def free_if_not_begun(self) -> None:
        """Let the folder be free for a new run again if the start got no further than its configs.

        What is derived from the values is only known once all parts are built.
        """
        try:
            begun = "derived" in parse_json(self.resolved_config.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            begun = False
        if not begun:
            self.original_config.unlink(missing_ok=True)

    def _unwritable(self, path: Path, error: OSError) -> DiskError:
        return DiskError(
            f"{path} can't be written ({error.strerror}); {remedy(error)}, or give another "
            "--run-dir"
        )


def _remove(path: Path) -> None:
    """Remove a folder, or a link and not what it leads to, as far as that works."""
    if path.is_symlink():
        path.unlink()
    else:
        shutil.rmtree(path, ignore_errors=True)


def new_run_path(
    root: Path = Path("runs"), now: datetime.datetime | None = None, name: str = ""
) -> Path:
    """Return a dated path under `root` with the config's name, for a numbered folder."""
    now = datetime.datetime.now() if now is None else now
    word = re.sub(r"[^\w.-]+", "-", name).strip("-.")[:60]
    return root / "_".join([now.strftime("%Y-%m-%d_%H-%M-%S"), *[word] * bool(word)])


def run_path(path: str) -> Path:
    """Return the absolute path of a run, with the home folder that `~` stands for.

    Raises:
        ResumeError: `~` is of a user that there isn't.
    """
    try:
        return Path(path).expanduser().absolute()
    except RuntimeError as error:
        raise ResumeError(f"{path}: there is no such user's folder; write the path out") from error


def split_step(value: str) -> tuple[str, str]:
    """Return the run and the step of `RUN[:STEP]`; without a step `latest`."""
    run, colon, step = value.rpartition(":")
    if colon and not Path(value).exists() and (step == "latest" or step.isdecimal()):
        return run, step
    return value, "latest"
