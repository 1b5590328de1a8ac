"""A training run, from request to exit code; and the dry run."""

import dataclasses
import logging
from contextlib import ExitStack
from pathlib import Path

from chomp.checkpoint.checkpointer import SavedRun
from chomp.checkpoint.compatibility import (
    changes,
    check_begins,
    keep_old_defaults,
    package_versions,
    rewarm_from,
)
from chomp.checkpoint.directory import CheckpointChoice
from chomp.config import Config, config_warnings
from chomp.data import is_stuck, lanes_of
from chomp.distributed import ProcessInfo
from chomp.errors import Interrupted
from chomp.run.acquire import acquire_folder
from chomp.system.console import LogConsole
from chomp.system.jax_runtime import memory_readings, start_jax
from chomp.system.signals import Signals, work_left_behind
from chomp.system.source_commit import source_commit
from chomp.tracking import PlainConsole, log_to_file
from chomp.trainer.components import Components, build_components, derived_values
from chomp.trainer.context import RunContext
from chomp.trainer.first_step import take_first_step
from chomp.trainer.initial_weights import choose_step, located, open_weights
from chomp.trainer.open_run import connect_processes, console_of, open_run, shared_settings
from chomp.trainer.refusal import all_at_once, check_installed
from chomp.trainer.request import Request
from chomp.trainer.resume import (
    check_contents,
    check_platform,
    check_settings,
    choose_checkpoint,
    rate_line,
    stay_at_commits,
)
from chomp.trainer.shared_programs import SharedPrograms
from chomp.trainer.summary import dry_run_lines, parameter_table, start_lines
from chomp.trainer.trainer import Trainer

log = logging.getLogger(__name__)


def train(request: Request, programs: SharedPrograms | None = None) -> int:
    """Train to the last step or to a stop signal, and return the exit code.

    Args:
        request: what the user asked for.
        programs: of the runs before it in this process; None: it shares none.

    Raises:
        ChompError: anything the user can act on.
    """
    if request.resume is None:
        request = dataclasses.replace(request, config=located(request.config))
    with ExitStack() as resources:
        signals = resources.enter_context(Signals())
        check_installed(request.config)  # before the folder is taken
        try:
            coordinator = connect_processes(request.config, request.process, signals, resources)
            options = {"--resume": request.resume, "--allow-change": list(request.allow_change)}
            coordinator.agree(shared_settings(request.config) | options)
            acquired = acquire_folder(request.folder, request.resume, coordinator, resources)
        except Interrupted:
            return signals.exit_code
        request = dataclasses.replace(request, folder=acquired.folder)
        context = open_run(request, acquired, coordinator, signals, resources)
        try:
            saved, config, context = _restore(request, context)
            request = dataclasses.replace(request, config=config)
            components = _build(request, context, saved, resources, programs)
        except Interrupted:
            context.monitor.stopped(signals.stop)
            context.console.message("stopped before the first step")
            return signals.exit_code
        if saved:
            check_contents(components, saved, context)
            if line := rate_line(components, saved):
                context.console.message(line)
            lanes = lanes_of(saved.data_state)
            if config.data.lanes not in (None, lanes):
                context.console.warn(
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
    check_begins(config)
    with ExitStack() as resources:
        coordinator = connect_processes(config, process, Signals(), resources)
        coordinator.agree(shared_settings(config))
        console = console_of(config, coordinator, steps=1)
        log_to_file(None, config.logging.level, console)
        with all_at_once(config, own_tokenizer=False):
            device = _start_jax(config)
            components = _build_components(config, device, console, resources)
        chosen = coordinator.on_leader("weights", choose_step, components.config, None, console)
        open_weights(components, chosen)
        console.table("Parameters", *parameter_table(components))
        step = take_first_step(components, next(components.data.train).batch)
        for line in dry_run_lines(components, step, memory_readings()):
            console.message(line)


def _restore(request: Request, context: RunContext) -> tuple[SavedRun | None, Config, RunContext]:
    """Read the checkpoint to go on from, and begin the start in the run's record.

    Returns:
        The checkpoint without its arrays, None for a run from the beginning; the configuration,
        where the run was begun by an earlier version with that version's defaults; and the context,
        which allows what a branch has changed where it goes on from its parent's checkpoint.
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
        if branched := context.is_branch_point(choice.step):
            allowed = [*context.allow_change, *branched.allow_change]
            context = dataclasses.replace(context, allow_change=allowed)
        config = keep_old_defaults(config, saved.meta["config"])
        config = stay_at_commits(config, saved, context)
        config = rewarm_from(config, saved.meta["config"], choice.step)
        check_settings(config, saved, context)
    else:
        check_begins(config)
    values = config.model_dump(mode="json")
    commit = source_commit()
    versions = package_versions() | ({"commit of chomp": commit} if commit else {})
    monitor.begin(versions=versions, config=values, compare=changes)
    if saved:
        fallbacks = [{"step": step, "reason": what} for step, what in choice.rejected]
        monitor.resumed(saved.progress.step, fallbacks)
    return saved, config, context


def _build(
    request: Request,
    context: RunContext,
    saved: SavedRun | None,
    resources: ExitStack,
    programs: SharedPrograms | None,
) -> Components:
    """Start JAX, and build the components and say what they are; a stop interrupts it."""
    config = request.config
    snapshot = request.folder.tokenizer if request.resume else None
    lanes = lanes_of(saved.data_state) if saved else None
    coordinator, recorder = context.coordinator, context.monitor.recorder
    chosen = 0
    if saved is None:
        chosen = coordinator.on_leader(
            "weights",
            context.signals.unless_stopped,
            choose_step,
            config,
            recorder.record.parent,
            context.console,
        )

    def build() -> Components:
        with all_at_once(config, own_tokenizer=request.resume is not None):
            device = _start_jax(config)
            recorder.on_device(device)
            if saved:
                check_platform(saved, context)
            built = _build_components(
                config, device, context.console, resources, snapshot, lanes, programs
            )
        if saved is None and (weights := open_weights(built, chosen)):
            recorder.began_from(weights.parent)
        return built

    with coordinator.interruptible("parts"):
        return context.signals.unless_stopped(build)


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
    programs: SharedPrograms | None = None,
) -> Components:
    logged = LogConsole(log, console)
    components = build_components(config, snapshot, lanes, logged, programs)
    resources.callback(components.data.close)
    for note in (*components.tokenizer.notes, *components.data.notes):
        logged.warn(note)
    for warning in config_warnings(components.config):
        console.warn(warning)
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
        context.console.warn(warning)
    if saved is None:
        with folder.replace_tokenizer() as draft:
            components.tokenizer.save(draft)
    folder.write_configs(request.original, resolved)
    if checkpointer and saved and (aside := checkpointer.set_aside_after(saved.progress.step)):
        context.console.message(f"newer checkpoints set aside in {aside}")
