"""The start of a training run: processes, run folder, checkpoint, components; then the Trainer."""

import dataclasses
import logging
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from chomp.checkpoint.checkpointer import Checkpointer, SavedRun
from chomp.checkpoint.compatibility import (
    ENVIRONMENT,
    changes,
    flat,
    keep_old_defaults,
    package_versions,
)
from chomp.checkpoint.directory import CheckpointChoice
from chomp.config import Config, config_warnings
from chomp.coordinator import Coordinator
from chomp.data import is_stuck, lanes_of
from chomp.distributed import ProcessInfo, connect
from chomp.errors import ChompError, Interrupted, ResumeError
from chomp.run.acquire import AcquiredFolder, acquire_folder
from chomp.run.monitor import RunMonitor
from chomp.run.ownership import claim_outputs
from chomp.run.run_folder import RunFolder
from chomp.system.jax_runtime import memory_readings, numeric_environment, start_jax
from chomp.system.signals import Signals, work_left_behind
from chomp.tracking import NoConsole, PlainConsole, log_to_file, open_console, require_wandb
from chomp.trainer.callbacks.base import Callback
from chomp.trainer.components import Components, build_components, derived_values
from chomp.trainer.context import RunContext
from chomp.trainer.program import compile_step
from chomp.trainer.resume import check_contents, check_settings, choose_checkpoint
from chomp.trainer.summary import dry_run_lines, parameter_table, start_lines
from chomp.trainer.trainer import Trainer

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Request:
    """What the user asked for.

    Attributes:
        config: the validated configuration.
        original: text of the user's file.
        folder: where the run lives.
        resume: `latest`, a step, or None for a new run.
        allow_change: dotted keys that may differ from the saved run.
        started: `time.perf_counter()` when the command began.
        process: this one among several; None: it is alone.
        callbacks: the user's own, besides those that the configuration asks for.
    """

    config: Config
    original: str
    folder: RunFolder
    resume: str | None
    allow_change: Sequence[str]
    started: float
    process: ProcessInfo | None = None
    callbacks: Sequence[Callback] = ()


def train(request: Request) -> int:
    """Train to the last step or to a stop signal, and return the exit code.

    Raises:
        ChompError: anything the user can act on.
    """
    with ExitStack() as resources:
        signals = resources.enter_context(Signals())
        if request.config.logging.wandb.enabled:
            require_wandb()  # before the folder is taken
        try:
            coordinator = _connect(request.config, request.process, signals, resources)
            options = {"--resume": request.resume, "--allow-change": list(request.allow_change)}
            coordinator.agree(_settings(request.config) | options)
            acquired = acquire_folder(request.folder, request.resume, coordinator, resources)
        except Interrupted:
            return signals.exit_code
        request = dataclasses.replace(request, folder=acquired.folder)
        context = _open_run(request, acquired, coordinator, signals, resources)
        try:
            saved, config = _restore(request, context)
            request = dataclasses.replace(request, config=config)
            components = _build(request, context, saved, resources)
        except Interrupted:
            context.monitor.stopped(signals.stop)
            context.console.message("stopped before the first step")
            return signals.exit_code
        if saved:
            check_contents(components, saved, context)
            lanes = lanes_of(saved.data_state)
            if config.data.lanes not in (None, lanes):
                context.warn(
                    f"data.lanes: stays {lanes}, as the run began with it (got {config.data.lanes})"
                )
        coordinator.on_leader("start", _write_start, request, context, components, saved)
        with coordinator.translate_peer_failures():
            return Trainer(components, context, saved, callbacks=request.callbacks).fit()


def work_goes_on() -> bool:
    """Whether threads of an ended run are still busy with what a stop has interrupted."""
    return work_left_behind() or is_stuck()


def dry_run(config: Config, process: ProcessInfo | None = None) -> None:
    """Build everything, compile and take one step; write nothing.

    Args:
        config: the validated configuration.
        process: this one among several; None: it is alone.

    Raises:
        ChompError: what would stop the run.
    """
    with ExitStack() as resources:
        coordinator = _connect(config, process, Signals(), resources)
        coordinator.agree(_settings(config))
        console = _open_console(config, coordinator, steps=1)
        log_to_file(None, config.logging.level, console.message)
        device = _start_jax(config)
        components = _build_components(config, device, console, resources)
        console.table("Parameters", *parameter_table(components))
        drawn = next(components.data.train)
        state = components.program.init()
        compiled = compile_step(components.program, components.config.train)
        start = time.perf_counter()
        _, metrics = compiled.step(state, drawn.batch)
        loss = float(metrics.loss)
        seconds = time.perf_counter() - start
        for line in dry_run_lines(components, compiled, seconds, loss, memory_readings()):
            console.message(line)


def _connect(
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
    resources.push(lambda kind, error, trace: coordinator.end(error))
    coordinator.hooks.stop_asked = lambda: signals.stop
    coordinator.hooks.ask_to_stop = signals.hear
    return coordinator


def _settings(config: Config) -> dict[str, Any]:
    """Return what all processes of a run must have alike."""
    versions = {f"version of {name}": number for name, number in package_versions().items()}
    return flat(config.model_dump(mode="json") | {ENVIRONMENT: numeric_environment()}) | versions


def _open_console(
    config: Config, coordinator: Coordinator, steps: int | None = None
) -> PlainConsole:
    """Return the console, which the leader alone has."""
    if not coordinator.is_leader:
        return NoConsole()
    return open_console(steps=steps or config.train.steps, use_rich=config.logging.console_use_rich)


def _open_run(
    request: Request,
    acquired: AcquiredFolder,
    coordinator: Coordinator,
    signals: Signals,
    resources: ExitStack,
) -> RunContext:
    """Open console, log, record and checkpoints of a run whose folder is taken."""
    config, folder = request.config, acquired.folder
    console = _open_console(config, coordinator)
    tell = console.message if coordinator.is_leader else _line_of(coordinator.index)
    log_path = _log_path(config, folder, coordinator)
    monitor = RunMonitor(
        record=folder.record,
        heartbeat=folder.heartbeat,
        log_file=log_path,
        watchdog_seconds=config.runtime.watchdog_seconds,
        started=request.started,
        tell=tell,
        keep=coordinator.is_leader,
    )
    run = monitor.recorder.record.run
    found = coordinator.on_leader("places", _claim, request, run, acquired, resources)
    for warning in [*acquired.warnings, *found]:
        console.message(f"warning: {warning}")
    log_to_file(log_path, config.logging.level, tell)
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


def _line_of(process: int) -> Callable[[str], None]:
    """Return what prints a line about a process without console."""
    return lambda line: print(f"process {process}: {line}", file=sys.stderr, flush=True)


def _log_path(config: Config, folder: RunFolder, coordinator: Coordinator) -> Path | None:
    """Return the path of the process's own log."""
    if config.logging.log_file is None:
        return None
    path, index = folder.inside(config.logging.log_file), coordinator.index
    return path if coordinator.is_leader else path.with_suffix(f".process-{index}{path.suffix}")


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
        watched=lambda step: monitor.heartbeat.background("saving", step),
        coordinator=coordinator,
    )


def _restore(request: Request, context: RunContext) -> tuple[SavedRun | None, Config]:
    """Read the checkpoint to go on from, and begin the start in the run's record.

    Returns:
        The checkpoint without its arrays, None for a run from the beginning; and the configuration,
        where the run was begun by an earlier version with that version's defaults.
    """
    config, monitor, checkpointer = request.config, context.monitor, context.checkpointer
    choice = CheckpointChoice(
        *context.coordinator.on_leader(
            "checkpoint",
            context.signals.unless_stopped,
            choose_checkpoint,
            request.resume,
            config.train.steps,
            context,
        )
    )
    saved = None
    if checkpointer and choice.step is not None:
        saved = checkpointer.restore_run(choice.step)
        config = keep_old_defaults(config, saved.meta["config"])
        check_settings(config, saved, context)
    values = config.model_dump(mode="json")
    monitor.begin(versions=package_versions(), config=values, compare=changes)
    if saved:
        fallbacks = [{"step": step, "reason": what} for step, what in choice.rejected]
        monitor.resumed(saved.progress.step, fallbacks)
    return saved, config


def _build(
    request: Request, context: RunContext, saved: SavedRun | None, resources: ExitStack
) -> Components:
    """Start JAX, and build the components and say what they are; a stop interrupts it."""
    config = request.config
    snapshot = request.folder.tokenizer if request.resume else None
    lanes = lanes_of(saved.data_state) if saved else None

    def build() -> Components:
        device = _start_jax(config)
        context.monitor.recorder.on_device(device)
        return _build_components(config, device, context.console, resources, snapshot, lanes)

    return context.coordinator.interruptible("parts", context.signals.unless_stopped, build)


def _start_jax(config: Config) -> str:
    """Return what JAX computes on."""
    return start_jax(
        allow_cpu=config.train.allow_cpu,
        compile_cache=config.runtime.compile_cache,
        compile_cache_gb=config.runtime.compile_cache_gb,
    )


def _build_components(
    config: Config,
    device: str,
    console: PlainConsole,
    resources: ExitStack,
    snapshot: Path | None = None,
    lanes: int | None = None,
) -> Components:
    def warn(line: str) -> None:
        log.warning("%s", line)
        console.message(f"warning: {line}")

    components = build_components(config, snapshot, lanes, warn)
    resources.callback(components.data.close)
    for note in (*components.tokenizer.notes, *components.data.notes):
        warn(note)
    for warning in config_warnings(components.config):
        console.message(f"warning: {warning}")
    for line in start_lines(components, device):
        console.message(line)
    return components


def _write_start(
    request: Request, context: RunContext, components: Components, saved: SavedRun | None
) -> None:
    """Write what the folder of a run has from its start on."""
    folder, checkpointer = request.folder, context.checkpointer
    resolved = request.config.model_dump(mode="json") | {"derived": derived_values(components)}
    if checkpointer and (warning := checkpointer.prepare(components.program.shapes)):
        context.warn(warning)
    if saved is None:
        folder.keep_tokenizer(components.tokenizer.save)
    folder.write_configs(request.original, resolved)
    if checkpointer and saved and (aside := checkpointer.set_aside_after(saved.progress.step)):
        context.console.message(f"newer checkpoints set aside in {aside}")
