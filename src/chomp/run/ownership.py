"""The paths that a run writes to: apart from each other, and nobody else's.

What a run has outside of its folder is marked as its own by a file beside or in it, so that no
other run appends to it, deletes in it or goes on from it.
"""

import json
import os
import re
from collections.abc import Collection, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

from chomp.config import Config
from chomp.errors import ConfigError, DiskError, ResumeError
from chomp.run_files import RUN_FILES, RUN_PLACES, beside
from chomp.system.atomic_file import replace_text
from chomp.system.folder_lock import FolderLock
from chomp.system.json_text import parse_json
from chomp.system.path_limits import LONGEST, check_path, shortened, why
from chomp.system.terminal import is_standard_stream

OWNER = "chomp-run.json"
LOCK = "chomp-run.lock"
LOG_LINE = re.compile(rb"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} [A-Z]+ ")


class OutputPath(NamedTuple):
    """An output path that a key of the configuration names."""

    key: str
    value: str
    path: Path
    """As the run uses it."""
    rows: bool = False
    """Whether it is a file of rows, out of which a resume takes some."""

    @property
    def is_folder(self) -> bool:
        """Whether it is that of the checkpoints; the others are files."""
        return self.key == "checkpoint.root_dir"

    @property
    def real(self) -> Path:
        """The path without links."""
        return self.path.resolve()

    @property
    def mark(self) -> Path:
        """The file that says whose it is."""
        place = self.real
        if self.is_folder:
            return place / OWNER
        return place.with_name(f"{place.name}.{OWNER}")


class Owner(NamedTuple):
    """The run that an output path belongs to."""

    run: str
    """The run's identifier."""
    folder: str
    """The run folder's path."""
    place: str
    """The place's own path: a copy of it isn't the run's any more."""


def claim_outputs(
    folder: Path, run: str, config: Config, resources: ExitStack, *, new: bool, clean: bool
) -> list[str]:
    """Check that all that the run writes to is its own, and mark it so; return warnings.

    Args:
        folder: the run folder; exists.
        run: identifies it.
        config: the run's.
        resources: get the lock of a folder of checkpoints outside of the run folder.
        new: whether it begins.
        clean: whether the folder holds files that aren't chomp's, if any.

    Raises:
        ConfigError: two places meet, or one can't be.
        ResumeError: one is another run's, or the user's.
        DiskError: one can't be marked.
    """
    home = folder.resolve()
    taken = {home / place: f"the run's own {place}" for place in RUN_PLACES}
    warnings = []
    for place in _places(folder, config):
        if is_standard_stream(place.path):
            if place.rows or place.is_folder:
                what = "folder" if place.is_folder else "file"
                raise ConfigError([f"{place.key}: must be a {what} (got {place.value!r})"])
            continue
        try:
            real = place.real
            check_path(real / LONGEST if place.is_folder else place.mark)
        except (OSError, ValueError, RuntimeError) as error:  # the last: links in a circle
            got = shortened(place.value)
            raise ConfigError(
                [f"{place.key}: can't be used ({why(error)}; got {got!r})"]
            ) from error
        for other, whose in taken.items():
            around = other.is_relative_to(real) and not home.is_relative_to(real)
            if around or real.is_relative_to(other):
                raise ConfigError(
                    [f"{place.key}: must be apart from {whose} (got {place.value!r}, {real})"]
                )
        taken[real] = place.key
        if place.rows:
            taken |= dict.fromkeys(beside(real), f"what {place.key} keeps beside itself")
        if not real.is_relative_to(home):
            if place.is_folder:
                if not resources.enter_context(_lock(place)).held:
                    warnings.append(
                        f"{real}: its file system has no locks; use it for no other run"
                    )
            elif real.exists() and not real.is_file():  # such as /dev/null: nobody's
                continue
            _take(place, Owner(run, str(home), str(real)), new=new)
        elif new and clean and not place.is_folder and _has_content(real):
            raise ResumeError(
                f"{real} is there already, and not of a run of chomp's; move it away, or give "
                f"another --run-dir or {place.key}"
            )
    return warnings


def check_asked_for(folder: Path, config: Config, given: Collection[str] | None) -> None:
    """Check that nothing new is made outside of a run folder which the user hasn't asked for.

    The configuration of a run folder may be somebody else's. What the run has made outside of it
    is marked as its own, which nobody can do who only made the folder.

    Args:
        folder: the run folder.
        config: the run's.
        given: dotted keys and sections that the user gives; None: all of `config` is the user's.

    Raises:
        ResumeError: it is.
    """
    if given is None:
        return
    places = list(_places(folder, config))
    if config.train.profile and (value := config.train.profile_dir):
        places.append(OutputPath("train.profile_dir", value, folder / value))
    home = os.path.realpath(folder)
    for place in (place for place in places if not is_standard_stream(place.path)):
        asked = any(place.key == key or place.key.startswith(f"{key}.") for key in given)
        try:
            real = place.real
            unknown = not asked and not real.is_relative_to(home) and not _is_there(place)
        except (OSError, ValueError, RuntimeError):  # `claim_outputs` says what is wrong with it
            continue
        if unknown:
            raise ResumeError(
                f"{place.key}: the configuration, a run folder's, has it lead to "
                f"{shortened(real)}, outside of {shortened(folder)}, where nothing of this run is; "
                "if you want the run to write there, say so: "
                f"-o {place.key}={shortened(place.value)}"
            )


def _is_there(place: OutputPath) -> bool:
    """Whether a place is marked, or holds what may be an earlier version's; or is a device."""
    if place.key == "train.profile_dir":
        return (place.real / "plugins").is_dir()  # JAX makes it
    if place.real.exists() and not (place.real.is_file() or place.real.is_dir()):
        return True
    return _owner(place) is not None or _has_content(place.real)


def _places(folder: Path, config: Config) -> Iterator[OutputPath]:
    if config.checkpoint.enabled:
        value = config.checkpoint.root_dir or "checkpoints"
        yield OutputPath("checkpoint.root_dir", value, folder / value)
    value = config.logging.metrics_file
    yield OutputPath("logging.metrics_file", value, folder / value, rows=True)
    if (value := config.logging.log_file) is not None:
        yield OutputPath("logging.log_file", value, folder / value)


def _lock(place: OutputPath) -> FolderLock:
    try:
        place.real.mkdir(parents=True, exist_ok=True)
        return FolderLock(place.real, LOCK)
    except BlockingIOError as error:
        raise ResumeError(
            f"{place.key}: another run is writing to {place.real}; give another place"
        ) from error
    except OSError as error:
        raise DiskError(
            f"{place.real} can't be written to ({error.strerror}); set {place.key} to another "
            "folder, or make this one writable"
        ) from error


def _take(place: OutputPath, me: Owner, *, new: bool) -> None:
    """Mark a place outside of the run folder as this run's, if it is."""
    owner = _owner(place)
    if owner is None:
        _check_unmarked(place, Path(me.folder), new=new)
    else:
        _check_owner(place, owner, me)
    if owner != me:
        try:
            place.real.parent.mkdir(parents=True, exist_ok=True)
            replace_text(place.mark, json.dumps(me._asdict()) + "\n")
        except OSError as error:
            raise DiskError(
                f"{place.mark} can't be written ({error.strerror}); set {place.key} to another "
                "place, or make this one writable"
            ) from error


def _check_unmarked(place: OutputPath, home: Path, *, new: bool) -> None:
    if other := _run_around(place.real, home):
        raise ResumeError(
            f"{place.key}: {place.real} belongs to the run in {other}; give another place"
        )
    if _has_content(place.real) and (new or not (place.is_folder or _is_of_a_run(place))):
        what = "checkpoints, of another run" if place.is_folder else "what isn't this run's"
        raise ResumeError(f"{place.key}: {place.real} already holds {what}; give another place")


def _check_owner(place: OutputPath, owner: Owner, me: Owner) -> None:
    if owner.run != me.run and owner.folder != me.folder:
        raise ResumeError(
            f"{place.key}: {place.real} belongs to the run in {owner.folder}; give another place "
            f"(if that run is this one, and its run.json is lost, delete {place.mark})"
        )
    if owner.folder != me.folder and _run_in(Path(owner.folder)) == owner.run:
        raise ResumeError(
            f"{place.key}: {place.real} belongs to the run in {owner.folder}, of which this folder "
            "is a copy; give another place, with a copy of what is in that one"
        )


def _owner(place: OutputPath) -> Owner | None:
    """Return whose a place is; None: it has no mark, or one of what it is a copy of.

    Raises:
        ResumeError: the mark can't be read.
    """
    try:
        values = parse_json(place.mark.read_text(encoding="utf-8"))
        owner = Owner(str(values["run"]), str(values["folder"]), str(values["place"]))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ResumeError(
            f"{place.mark}, which says whose {place.real} is, can't be read ({error}); give "
            f"another {place.key}, or delete the mark if the place is this run's"
        ) from error
    return owner if owner.place == str(place.real) else None


def _run_in(folder: Path) -> str | None:
    try:
        values = parse_json((folder / "run.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return values.get("run") if isinstance(values, dict) else None


def _run_around(path: Path, home: Path) -> Path | None:
    """Return the folder of another run that a path lies in."""
    others = (folder for folder in path.parents if not home.is_relative_to(folder))
    return next((folder for folder in others if (folder / RUN_FILES[0]).is_file()), None)


def _has_content(path: Path) -> bool:
    """Whether a file isn't empty, or a folder holds checkpoints."""
    if path.is_dir():
        return any(name.isdecimal() for name in os.listdir(path))
    return os.path.lexists(path) and (not path.is_file() or path.stat().st_size > 0)


def _is_of_a_run(place: OutputPath) -> bool:
    """Whether a file begins as a run's does: it may be an earlier version's, unmarked."""
    try:
        with place.real.open("rb") as file:
            line = file.readline(1 << 20)
        if not place.rows:
            return LOG_LINE.match(line) is not None
        row: Any = parse_json(line)
    except (OSError, ValueError):
        return False
    return isinstance(row, dict) and "step" in row
