"""A training run, from its configuration to its summary: the only module that knows all parts."""

import dataclasses
import functools
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from chomp.checkpoint.archive import Choice, damage_lines
from chomp.checkpoint.store import Checkpoints, SavedRun
from chomp.cohort import Cohort
from chomp.config import Config, config_warnings
from chomp.data import is_stuck, lanes_of
from chomp.errors import Interrupted, ResumeError
from chomp.history.heartbeat import Heartbeat
from chomp.history.history import History
from chomp.history.lineage import Lineage
from chomp.identity import changes, check_identity, flat, package_versions
from chomp.parallel import Place, join
from chomp.parts import Setup, derived_values, set_up
from chomp.programs import compile_step
from chomp.report import dry_run_lines, parameter_table, start_lines
from chomp.run_folder import RunFolder
from chomp.runtime import memory_readings, start_jax
from chomp.session import Session
from chomp.signals import Signals, work_left_behind
from chomp.tracking import (
    NoConsole,
    PlainConsole,
    log_to_file,
    open_console,
    require_wandb,
)


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
    place: Place | None = None


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
            cohort = _join(request.place, config, signals, resources)
            cohort.agree(_settings(request))
            request = _take_folder(request, cohort, resources)
        except Interrupted:
            return signals.exit_code
        console = _open_console(config, cohort)
        tell = console.message if cohort.is_leader else _line_of(cohort.index)
        log_path = _log_path(request, cohort)
        log_to_file(log_path, config.logging.level, tell)
        history = resources.enter_context(_open_history(request, log_path, tell, cohort))
        cohort.hooks.before_end = history.lost
        checkpoints = _open_checkpoints(request, resources, history.heartbeat, cohort)
        snapshot = request.folder.tokenizer if request.resume else None
        try:
            choose = functools.partial(_choose, request, checkpoints, console, history.lineage)
            choice = Choice(
                *cohort.from_leader("checkpoint", lambda: signals.unless_stopped(choose))
            )
            saved = _read_saved(request, checkpoints, choice, console)
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
        cohort.from_leader(
            "start", lambda: _write_start(request, setup, saved, checkpoints, console)
        )
        session = Session(
            setup,
            request.folder,
            checkpoints,
            saved,
            console,
            signals,
            history,
            request.started,
            cohort,
        )
        with cohort.explained():
            return session.go()


def _join(place: Place | None, config: Config, signals: Signals, resources: ExitStack) -> Cohort:
    """Meet the other processes of the run, if there are any."""
    if place is None:
        return Cohort()
    seconds, lost_after = config.parallel.join_seconds, config.parallel.lost_after_seconds
    cohort = signals.unless_stopped(lambda: join(place, seconds=seconds, lost_after=lost_after))
    resources.push(lambda kind, error, trace: cohort.end(error))
    cohort.hooks.stop_asked = lambda: signals.stop
    cohort.hooks.ask_to_stop = signals.hear
    return cohort


def _settings(request: Request) -> dict[str, Any]:
    """Return what all processes of a run must have alike."""
    options = {"--resume": request.resume, "--allow-change": list(request.allow_change)}
    versions = {f"version of {name}": number for name, number in package_versions().items()}
    return flat(request.config.model_dump(mode="json")) | options | versions


def _take_folder(request: Request, cohort: Cohort, resources: ExitStack) -> Request:
    """Have the leader take the run folder; return the request with it."""

    def take() -> list[str]:
        folder = request.folder
        if request.resume:
            folder.require_run()
        else:
            folder.claim()
        resources.enter_context(folder.lock())
        return [] if cohort.size == 1 else [str(folder.path.absolute()), folder.mark()]

    taken = cohort.from_leader("run folder", take)
    if cohort.is_leader:
        return request
    path, mark = taken
    folder = RunFolder(Path(path))
    folder.check_shared(mark)
    return dataclasses.replace(request, folder=folder)


def _open_console(config: Config, cohort: Cohort, steps: int | None = None) -> PlainConsole:
    if not cohort.is_leader:
        return NoConsole()
    return open_console(steps=steps or config.train.steps, use_rich=config.logging.console_use_rich)


def _line_of(process: int) -> Callable[[str], None]:
    """Return what prints lines about a process that has no console."""
    return lambda line: print(f"process {process}: {line}", file=sys.stderr, flush=True)


def _log_path(request: Request, cohort: Cohort) -> Path | None:
    name = request.config.logging.log_file
    if name is None:
        return None
    path = request.folder.inside(name)
    return path if cohort.is_leader else path.with_suffix(f".process-{cohort.index}{path.suffix}")


def _write_start(
    request: Request,
    setup: Setup,
    saved: SavedRun | None,
    checkpoints: Checkpoints | None,
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


def work_goes_on() -> bool:
    """Whether threads of an ended run are still busy with what a stop has interrupted."""
    return work_left_behind() or is_stuck()


def dry_run(config: Config, place: Place | None = None) -> None:
    """Build everything, compile and take one step; write nothing.

    Args:
        config: the validated configuration.
        place: of this process among several; None: it is alone.

    Raises:
        ChompError: what would stop the run.
    """
    with ExitStack() as resources:
        cohort = _join(place, config, Signals(), resources)
        cohort.agree(flat(config.model_dump(mode="json")))
        console = _open_console(config, cohort, steps=1)
        log_to_file(None, config.logging.level, console.message)
        setup = _prepare(config, None, None, console, resources)
        console.table("Parameters", *parameter_table(setup))
        state = setup.learner.init()
        compiled = compile_step(setup)
        drawn = next(setup.data.train)
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
) -> Setup:
    """Start JAX, build the parts and say what they are."""
    device = start_jax(allow_cpu=config.train.allow_cpu, compile_cache=config.runtime.compile_cache)
    on_device(device)
    setup = set_up(config, snapshot, lanes)
    resources.callback(setup.data.close)
    for warning in config_warnings(setup.config):
        console.message(f"warning: {warning}")
    for line in start_lines(setup, device):
        console.message(line)
    return setup


def _open_history(
    request: Request, log_file: Path | None, tell: Callable[[str], None], cohort: Cohort
) -> History:
    folder, config = request.folder, request.config
    return History(
        record=folder.record,
        heartbeat=folder.heartbeat,
        log_file=log_file,
        watchdog_seconds=config.runtime.watchdog_seconds,
        started=request.started,
        tell=tell,
        keep=cohort.is_leader,
    )


def _open_checkpoints(
    request: Request, resources: ExitStack, heartbeat: Heartbeat, cohort: Cohort
) -> Checkpoints | None:
    settings = request.config.checkpoint
    if not settings.enabled:
        return None
    checkpoints = Checkpoints(
        request.folder.inside(settings.root_dir or "checkpoints"),
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
    request: Request, checkpoints: Checkpoints | None, console: PlainConsole, lineage: Lineage
) -> Choice:
    """Return the step to go on from, and say what is wrong with newer ones."""
    if request.resume is None:
        return Choice(None, [])
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


def _read_saved(
    request: Request, checkpoints: Checkpoints | None, choice: Choice, console: PlainConsole
) -> SavedRun | None:
    """Return the chosen checkpoint, once its configuration is known to fit."""
    if checkpoints is None or choice.step is None:
        return None
    saved = checkpoints.restore_run(choice.step)
    config = request.config.model_dump(mode="json")
    for change in check_identity(saved.meta["config"], config, request.allow_change):
        console.message(f"changed since the checkpoint: {change}")
        if change.key == "train.steps" and request.config.optim.decay_steps is None:
            console.message("  the learning rate decays until the new last step from here on")
    for change in changes(saved.meta["versions"], package_versions()):
        console.message(f"warning: {change}; results may differ in their last bits from here on")
    return saved


def _check_fit(
    saved: SavedRun, checkpoints: Checkpoints | None, setup: Setup, allowed: Sequence[str]
) -> None:
    """Check that data and tokenizer are what they were, and that the parameters fit."""
    check_identity(saved.meta["identity"], setup.identity, allowed)
    if checkpoints:
        checkpoints.check_shapes(saved.progress.step, setup.learner.shapes.params)
