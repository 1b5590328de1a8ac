"""A sweep, from its plan to its results."""

from contextlib import ExitStack
from pathlib import Path

from chomp.errors import ResumeError
from chomp.sweep.conduct import CALIBRATION, Conductor
from chomp.sweep.display import Display
from chomp.sweep.plan import Plan, timing_key
from chomp.sweep.pool import Pool
from chomp.sweep.record import NAME, SweepRecord, check_same, extended, read_record, record_of
from chomp.sweep.results import SweepResults, results
from chomp.system.console import Console
from chomp.system.folder_lock import FolderLock
from chomp.system.jax_runtime import cpu_threads, keep_cpu_threads
from chomp.system.signals import Signals

LOCK = "sweep.lock"


def open_record(plan: Plan, folder: Path, console: Console, resources: ExitStack) -> SweepRecord:
    """Take the folder of a sweep, and return the record of what is done there.

    Args:
        plan: of the sweep.
        folder: is made if it isn't there.
        console: shows warnings.
        resources: give the folder back at their end.

    Raises:
        ResumeError: it holds something else, or another process is at it.
    """
    record = read_record(folder)
    if record is not None and any((folder / run.run).exists() for run in record.runs):
        check_same(record, plan, folder)
    else:
        record = None  # or it has trained nothing
        _check_free(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        resources.callback(FolderLock(folder, LOCK).close)
    except BlockingIOError as error:
        raise ResumeError(
            f"another chomp sweep is at work in {folder}; wait for its end"
        ) from error
    except OSError as error:
        raise ResumeError(
            f"{folder} can't be written to ({error.strerror}); give another --dir"
        ) from error
    if record is None:
        return record_of(plan, cpu_threads())
    # The same sums as before, in the processes that are started.
    if line := keep_cpu_threads(record.cpu_threads or None):
        console.message(line)
    return extended(record, plan)


def _check_free(folder: Path) -> None:
    try:
        there = [path.name for path in folder.iterdir()]
    except FileNotFoundError:
        return
    except OSError as error:
        raise ResumeError(
            f"{folder} can't be read ({error.strerror}); give another --dir"
        ) from error
    own = (LOCK, NAME, CALIBRATION)
    others = [name for name in there if name not in own and not name.startswith("worker-")]
    if others:
        raise ResumeError(
            f"{folder} holds no sweep, but {others[0]}; give another --dir, or an empty folder"
        )


def run_sweep(
    plan: Plan, record: SweepRecord, folder: Path, jobs: int, display: Display
) -> tuple[SweepResults, int]:
    """Train what isn't trained yet.

    Returns:
        The results so far, and the exit code: 0 where all runs are finished, 1 where one has
        failed, 128 + the signal that stopped it.

    Raises:
        ConfigError: a run can't start; none has.
    """
    with Signals() as signals, Pool(folder, jobs, signals) as pool, display:
        Conductor(plan, record, folder, pool, display).run()
        code = signals.exit_code
    programs = {name: timing_key(config) for name, config in plan.configs.items()}
    found = results(record, folder, programs, plan.baseline)
    return found, code or (0 if found.is_complete else 1)
