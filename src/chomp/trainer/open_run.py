"""What a run opens before anything of its model: processes, console, record, log, checkpoints."""

from contextlib import ExitStack
from pathlib import Path
from typing import Any

from chomp.checkpoint.checkpointer import Checkpointer
from chomp.checkpoint.compatibility import ENVIRONMENT, flat, package_versions
from chomp.config import Config
from chomp.coordinator import Coordinator
from chomp.distributed import ProcessInfo, connect
from chomp.errors import ChompError, ResumeError
from chomp.run.acquire import AcquiredFolder
from chomp.run.monitor import RunMonitor
from chomp.run.ownership import check_asked_for, claim_outputs
from chomp.run.run_folder import RunFolder
from chomp.system.console import PrintConsole
from chomp.system.jax_runtime import numeric_environment
from chomp.system.signals import Signals
from chomp.system.terminal import is_standard_stream
from chomp.tracking import NoConsole, PlainConsole, log_to_file, open_console
from chomp.trainer.context import RunContext
from chomp.trainer.request import Request


def connect_processes(
    config: Config, process: ProcessInfo | None, signals: Signals, resources: ExitStack
) -> Coordinator:
    """Meet the other processes of the run, if there are any; left at the end of `resources`.

    Raises:
        ConfigError: they can't be met, or not in time.
        Interrupted: a stop was asked for meanwhile.
    """
    if process is None:
        return Coordinator()
    parallel = config.parallel
    coordinator = signals.unless_stopped(
        connect, process, parallel.join_seconds, parallel.lost_after_seconds
    )
    resources.enter_context(coordinator)
    coordinator.hooks.stop_asked = lambda: signals.stop
    coordinator.hooks.ask_to_stop = signals.hear
    return coordinator


def shared_settings(config: Config) -> dict[str, Any]:
    """Return what all processes of a run must have alike."""
    versions = {f"version of {name}": number for name, number in package_versions().items()}
    return flat(config.model_dump(mode="json") | {ENVIRONMENT: numeric_environment()}) | versions


def console_of(config: Config, coordinator: Coordinator, steps: int | None = None) -> PlainConsole:
    """Return the console, which the leader alone has."""
    if not coordinator.is_leader:
        return NoConsole()
    return open_console(steps=steps or config.train.steps, use_rich=config.logging.console_use_rich)


def open_run(
    request: Request,
    acquired: AcquiredFolder,
    coordinator: Coordinator,
    signals: Signals,
    resources: ExitStack,
) -> RunContext:
    """Open console, log, record and checkpoints of a run whose folder is taken."""
    config, folder = request.config, acquired.folder
    console = console_of(config, coordinator)
    index = coordinator.index
    lines = (
        console if coordinator.is_leader else PrintConsole(stderr=True, prefix=f"process {index}: ")
    )
    log_path = _log_path(config, folder, coordinator)
    monitor = RunMonitor(
        record=folder.record,
        heartbeat=folder.heartbeat,
        log_file=log_path,
        watchdog_seconds=config.runtime.watchdog_seconds,
        started=request.started,
        console=lines,
        keep=coordinator.is_leader,
    )
    run = monitor.recorder.record.run
    found = coordinator.on_leader("places", _claim, request, run, acquired, resources)
    for warning in [*acquired.warnings, *found]:
        console.warn(warning)
    log_to_file(log_path, config.logging.level, lines)
    resources.enter_context(monitor)
    coordinator.hooks.before_end = monitor.lost
    run = coordinator.on_leader("name of the run", str, run)
    context = RunContext(
        folder,
        coordinator,
        signals,
        console,
        monitor,
        _open_checkpointer(request, coordinator, monitor, run),
        request.started,
        request.allow_change,
    )
    if checkpointer := context.checkpointer:
        resources.callback(checkpointer.close)
        if request.resume is None and coordinator.on_leader(
            "checkpoints there", checkpointer.steps
        ):
            raise ResumeError(
                f"{checkpointer.folder} already holds checkpoints, of another run; "
                "give another checkpoint.root_dir or --run-dir"
            )
    return context


def _claim(request: Request, run: str, acquired: AcquiredFolder, resources: ExitStack) -> list[str]:
    """Check that what a run writes to is its own; a new run keeps its configuration from here on.

    A run that is killed as it starts can be started again. If the start is refused, the folder is
    free again for a new run.
    """
    folder, lock = acquired.folder, acquired.lock
    new = not folder.holds_run()
    clean = lock is not None and not lock.was_there
    try:
        check_asked_for(folder.path, request.config, request.given)
        found = claim_outputs(folder.path, run, request.config, resources, new=new, clean=clean)
    except ChompError:
        if new and lock:
            lock.leave_no_trace()
        raise
    if new:
        folder.write_configs(request.original, request.config.model_dump(mode="json"))

        def free(kind: type[BaseException] | None, *_: object) -> None:
            if kind is not None:
                folder.free_if_not_begun()

        resources.push(free)
    return found


def _log_path(config: Config, folder: RunFolder, coordinator: Coordinator) -> Path | None:
    """Return the path of the process's own log."""
    if config.logging.log_file is None:
        return None
    path, index = folder.inside(config.logging.log_file), coordinator.index
    if coordinator.is_leader or is_standard_stream(path):
        return path
    return path.with_suffix(f".process-{index}{path.suffix}")


def _open_checkpointer(
    request: Request, coordinator: Coordinator, monitor: RunMonitor, run: str
) -> Checkpointer | None:
    settings = request.config.checkpoint
    if not settings.enabled:
        return None
    return Checkpointer(
        request.folder.inside(settings.root_dir or "checkpoints"),
        owner=run,
        max_to_keep=settings.max_to_keep,
        keep_every=settings.keep_every,
        async_save=settings.async_save,
        watch=monitor.heartbeat,
        coordinator=coordinator,
    )
