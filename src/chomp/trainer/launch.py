"""A training run, from its configuration to its summary: the only module that knows all parts."""

import dataclasses
import functools
import logging
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
    check_compatible,
    keep_old_defaults,
    matters,
    package_versions,
    without_evaluation,
)
from chomp.checkpoint.directory import CheckpointChoice, damage_lines
from chomp.config import Config, config_warnings
from chomp.coordinator import Coordinator
from chomp.data import is_stuck, lanes_of, place_after_changes
from chomp.distributed import ProcessInfo
from chomp.errors import ChompError, Interrupted, ResumeError
from chomp.run.heartbeat import Heartbeat
from chomp.run.monitor import RunMonitor
from chomp.run.ownership import claim_outputs
from chomp.run.recorder import RunRecorder
from chomp.run.run_folder import RunFolder
from chomp.system.jax_runtime import (
    keep_cpu_threads,
    memory_readings,
    numeric_environment,
    start_jax,
)
from chomp.system.signals import Signals, work_left_behind
from chomp.tracking import PlainConsole, log_to_file, require_wandb
from chomp.trainer.components import Components, build_components, derived_values
from chomp.trainer.programs import compile_step
from chomp.trainer.startup import console_of, line_of, log_path_of, meet, settings, take_folder
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
        place: of this process among several; None: it is alone.
    """

    config: Config
    original: str
    folder: RunFolder
    resume: str | None
    allow_change: Sequence[str]
    started: float
    place: ProcessInfo | None = None


def train(request: Request) -> int:
    """Train to the last step or to a stop signal, and return the exit code.

    Raises:
        ChompError: anything the user can act on.
    """
    config = request.config
    with ExitStack() as resources:
        signals = resources.enter_context(Signals())
        if config.logging.wandb.enabled:
            require_wandb()  # before the folder is taken
        try:
            cohort = meet(request.place, config, signals, resources)
            options = {"--resume": request.resume, "--allow-change": list(request.allow_change)}
            cohort.agree(settings(config) | options)
            taken = take_folder(request.folder, request.resume, cohort, resources)
            request = dataclasses.replace(request, folder=taken.folder)
        except Interrupted:
            return signals.exit_code
        folder = taken.folder
        console = console_of(config, cohort)
        tell = console.message if cohort.is_leader else line_of(cohort.index)
        log_path = log_path_of(config, folder, cohort)
        history = _open_history(request, log_path, tell, cohort)
        run = history.lineage.record.run

        def take() -> list[str]:
            new, lock = not folder.holds_run(), taken.lock
            clean = lock is not None and not lock.was_there
            try:
                found = claim_outputs(folder.path, run, config, resources, new=new, clean=clean)
            except ChompError:
                if new and lock:
                    lock.leave_no_trace()
                raise
            if new:
                _keep_until_refused(request, resources)
            return found

        for warning in [*taken.warnings, *cohort.from_leader("places", take)]:
            console.message(f"warning: {warning}")
        log_to_file(log_path, config.logging.level, tell)
        resources.enter_context(history)
        cohort.hooks.before_end = history.lost
        run = cohort.from_leader("name of the run", lambda: run)
        checkpoints = _open_checkpoints(request, resources, history.heartbeat, cohort, run)
        snapshot = request.folder.tokenizer if request.resume else None
        try:
            choose = functools.partial(_choose, request, checkpoints, console, history.lineage)
            choice = CheckpointChoice(
                *cohort.from_leader("checkpoint", lambda: signals.unless_stopped(choose))
            )
            saved = None
            if checkpoints and choice.step is not None:
                saved = checkpoints.restore_run(choice.step)
                config = keep_old_defaults(config, saved.meta["config"])
                request = dataclasses.replace(request, config=config)
                _check_config(request, saved, console)
            values = config.model_dump(mode="json")
            history.begin(versions=package_versions(), config=values, compare=changes)
            if saved:
                fallbacks = [{"step": step, "reason": what} for step, what in choice.rejected]
                history.resumed(saved.progress.step, fallbacks)
            lanes, on_device = (
                lanes_of(saved.data_state) if saved else None,
                history.lineage.on_device,
            )
            setup = cohort.interruptible(
                "parts",
                signals.unless_stopped,
                lambda: _prepare(config, snapshot, lanes, console, resources, on_device),
            )
        except Interrupted:
            history.stopped(signals.stop)
            console.message("stopped before the first step")
            return signals.exit_code
        if saved:
            _check_fit(saved, checkpoints, setup, request.allow_change)
            if config.data.lanes not in (None, lanes):
                console.message(
                    f"warning: data.lanes: stays {lanes}, as the run began with it "
                    f"(got {config.data.lanes})"
                )
        cohort.from_leader(
            "start", lambda: _write_start(request, setup, saved, checkpoints, console)
        )
        session = Trainer(
            setup,
            request.folder,
            checkpoints,
            saved,
            console,
            signals,
            history,
            request.started,
            cohort,
            functools.partial(place_in_data, setup, request.allow_change),
        )
        with cohort.explained():
            return session.go()


def _write_start(
    request: Request,
    setup: Components,
    saved: SavedRun | None,
    checkpoints: Checkpointer | None,
    console: PlainConsole,
) -> None:
    """Write what the folder of a run has from its start on."""
    folder = request.folder
    resolved = request.config.model_dump(mode="json") | {"derived": derived_values(setup)}
    if checkpoints and (warning := checkpoints.prepare(setup.learner.shapes)):
        console.message(f"warning: {warning}")
    if saved is None:
        folder.keep_tokenizer(setup.tokenizer.save)
    folder.write_configs(request.original, resolved)
    if checkpoints and saved and (aside := checkpoints.set_aside_after(saved.progress.step)):
        console.message(f"newer checkpoints set aside in {aside}")


def _keep_until_refused(request: Request, resources: ExitStack) -> None:
    """Write the configuration at once: a run that is killed as it starts can be started again.

    If the start is refused, the folder is free again for a new run.
    """
    folder = request.folder
    folder.write_configs(request.original, request.config.model_dump(mode="json"))

    def free(kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None:
            folder.free_if_not_begun()

    resources.push(free)


def work_goes_on() -> bool:
    """Whether threads of an ended run are still busy with what a stop has interrupted."""
    return work_left_behind() or is_stuck()


def dry_run(config: Config, place: ProcessInfo | None = None) -> None:
    """Build everything, compile and take one step; write nothing.

    Args:
        config: the validated configuration.
        place: of this process among several; None: it is alone.

    Raises:
        ChompError: what would stop the run.
    """
    with ExitStack() as resources:
        cohort = meet(place, config, Signals(), resources)
        cohort.agree(settings(config))
        console = console_of(config, cohort, steps=1)
        log_to_file(None, config.logging.level, console.message)
        setup = _prepare(config, None, None, console, resources)
        console.table("Parameters", *parameter_table(setup))
        drawn = next(setup.data.train)
        state = setup.learner.init()
        compiled = compile_step(setup)
        start = time.perf_counter()
        _, metrics = compiled.step(state, drawn.batch)
        loss = float(metrics.loss)
        seconds = time.perf_counter() - start
        for line in dry_run_lines(setup, compiled, seconds, loss, memory_readings()):
            console.message(line)


def _prepare(
    config: Config,
    snapshot: Path | None,
    lanes: int | None,
    console: PlainConsole,
    resources: ExitStack,
    on_device: Callable[[str], None] = lambda device: None,
) -> Components:
    """Start JAX, build the parts and say what they are."""
    device = start_jax(
        allow_cpu=config.train.allow_cpu,
        compile_cache=config.runtime.compile_cache,
        compile_cache_gb=config.runtime.compile_cache_gb,
    )
    on_device(device)

    def warn(line: str) -> None:
        log.warning("%s", line)
        console.message(f"warning: {line}")

    setup = build_components(config, snapshot, lanes, warn)
    resources.callback(setup.data.close)
    for note in (*setup.tokenizer.notes, *setup.data.notes):
        warn(note)
    for warning in config_warnings(setup.config):
        console.message(f"warning: {warning}")
    for line in start_lines(setup, device):
        console.message(line)
    return setup


def _open_history(
    request: Request, log_file: Path | None, tell: Callable[[str], None], cohort: Coordinator
) -> RunMonitor:
    folder, config = request.folder, request.config
    return RunMonitor(
        record=folder.record,
        heartbeat=folder.heartbeat,
        log_file=log_file,
        watchdog_seconds=config.runtime.watchdog_seconds,
        started=request.started,
        tell=tell,
        keep=cohort.is_leader,
    )


def _open_checkpoints(
    request: Request, resources: ExitStack, heartbeat: Heartbeat, cohort: Coordinator, run: str
) -> Checkpointer | None:
    settings = request.config.checkpoint
    if not settings.enabled:
        return None
    checkpoints = Checkpointer(
        request.folder.inside(settings.root_dir or "checkpoints"),
        owner=run,
        max_to_keep=settings.max_to_keep,
        keep_every=settings.keep_every,
        async_save=settings.async_save,
        watched=lambda step: heartbeat.background("saving", step),
        cohort=cohort,
    )
    resources.callback(checkpoints.close)
    if request.resume is None and cohort.from_leader("checkpoints there", checkpoints.steps):
        raise ResumeError(
            f"{checkpoints.folder} already holds checkpoints, of another run; "
            "give another checkpoint.root_dir or --run-dir"
        )
    return checkpoints


def _choose(
    request: Request, checkpoints: Checkpointer | None, console: PlainConsole, lineage: RunRecorder
) -> CheckpointChoice:
    """Return the step to go on from, and say what is wrong with newer ones."""
    if request.resume is None:
        return CheckpointChoice(None, [])
    if checkpoints is None:
        raise ResumeError(
            "checkpoint.enabled is false: there is nothing to resume from; set it to true, "
            "or start a new run in another folder"
        )
    choice = checkpoints.choose(request.resume)
    if choice.step is None:
        reached = f", though step {lineage.reached} was reached" if lineage.reached else ""
        console.message(f"nothing is saved{reached}: starting from the first step")
        return choice
    for line in damage_lines(choice):
        console.message(f"warning: {line}")
    if choice.rejected:
        reached = max(lineage.reached, choice.rejected[0][0])
        console.message(f"warning: {reached - choice.step} steps are trained again")
    if (steps := request.config.train.steps) < choice.step:
        raise ResumeError(
            f"train.steps: {steps} is less than the {choice.step} steps that are done; give more, "
            "or resume an earlier step"
        )
    return choice


def _check_config(request: Request, saved: SavedRun, console: PlainConsole) -> None:
    """Check that the configuration and the environment fit a saved run's."""
    now = request.config.model_dump(mode="json") | {ENVIRONMENT: numeric_environment()}
    # Checkpoints of earlier versions don't know the environment.
    before = {ENVIRONMENT: saved.meta.get(ENVIRONMENT, now[ENVIRONMENT])} | saved.meta["config"]
    for change in check_compatible(before, now, request.allow_change):
        console.message(f"changed since the checkpoint: {change}")
        if change.key == "train.steps" and request.config.optim.decay_steps is None:
            console.message("  the learning rate decays until the new last step from here on")
    # On a CPU; earlier versions didn't keep it.
    if line := keep_cpu_threads(saved.meta.get("cpu_threads")):
        console.message(line)
    for change in changes(saved.meta["versions"], package_versions()):
        console.message(f"warning: {change}; results may differ in their last bits from here on")


def place_in_data(
    setup: Components, allowed: Sequence[str], saved: SavedRun
) -> tuple[dict[str, Any], str]:
    """Return where the data of a saved run goes on now, and what to say about that."""
    data = setup.config.data
    found = [
        *changes(saved.meta["config"], setup.given.model_dump(mode="json")),
        *changes(saved.meta["identity"], setup.identity),
    ]
    return place_after_changes(
        saved.data_state,
        setup.start,
        [change.key for change in found if matters(change)],
        allowed,
        bins=data.packing_mode == "bin",
    )


def _check_fit(
    saved: SavedRun, checkpoints: Checkpointer | None, setup: Components, allowed: Sequence[str]
) -> None:
    """Check that data and tokenizer are what they were, and that the parameters fit."""
    then, now = saved.meta["identity"], setup.identity
    if setup.config.train.eval_every == 0:
        then, now = without_evaluation(then), without_evaluation(now)
    check_compatible(then, now, allowed)
    if checkpoints:
        checkpoints.check_shapes(saved.progress.step, setup.learner.shapes.params)
