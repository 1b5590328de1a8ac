"""A training run, from its configuration to its summary: the only module that knows all parts."""

import functools
import importlib.metadata
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from chomp.agenda import Agenda
from chomp.checkpoint.archive import damage_lines
from chomp.checkpoint.store import Checkpoints, SavedRun
from chomp.config import Config, config_warnings
from chomp.errors import ResumeError
from chomp.identity import changes, check_identity
from chomp.parts import Setup, compile_step, derived_values, set_up
from chomp.report import dry_run_lines, group_rows, program_name, start_lines, summary_lines
from chomp.run_folder import RunFolder
from chomp.runtime import memory_readings, start_jax
from chomp.signals import StopRequest
from chomp.tracking import (
    JsonLines,
    LastValues,
    PlainConsole,
    Sink,
    Tracker,
    WandbSink,
    keep_rows_up_to,
    last_logged_step,
    log_to_file,
    open_console,
    require_wandb,
)
from chomp.training import Ending, Profile, Stopwatch, run_loop
from chomp.types import Progress, TrainState

PACKAGES = ("chomp", "jax", "jaxlib", "equinox", "optax", "megalodon-jax", "grain", "datasets")


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
    """

    config: Config
    original: str
    folder: RunFolder
    resume: str | None
    allow_change: Sequence[str]
    started: float


def train(request: Request) -> int:
    """Train to the last step or to a stop signal, and return the exit code.

    Raises:
        ChompError: anything the user can act on.
    """
    config, folder = request.config, request.folder
    with ExitStack() as resources:
        stop = resources.enter_context(StopRequest())
        if config.logging.wandb.enabled:
            require_wandb()  # before the folder is taken
        if request.resume:
            folder.require_run()
        else:
            folder.claim()
        resources.enter_context(folder.lock())
        log_file = config.logging.log_file
        log_to_file(folder.inside(log_file) if log_file else None, config.logging.level)
        console = open_console(steps=config.train.steps, use_rich=config.logging.console_use_rich)
        checkpoints = _open_checkpoints(request, resources)
        saved = _read_saved(request, checkpoints, console)
        setup = _prepare(config, folder.tokenizer, console, resources)
        if saved is None:
            setup.tokenizer.save(folder.tokenizer)
        else:
            _check_fit(saved, checkpoints, setup, request.allow_change)
        resolved = config.model_dump(mode="json") | {"derived": derived_values(setup)}
        if checkpoints and (warning := checkpoints.prepare(setup.learner.shapes)):
            console.message(f"warning: {warning}")
        folder.write_configs(request.original, resolved)
        if checkpoints and saved and (aside := checkpoints.set_aside_after(saved.progress.step)):
            console.message(f"newer checkpoints set aside in {aside}")
        run = _Run(request, setup, checkpoints, saved, resources)
        tracker = resources.enter_context(run.open_tracker(console))
        return run.go(tracker, stop)


def dry_run(config: Config) -> None:
    """Build everything, compile and take one step; write nothing.

    Raises:
        ChompError: what would stop the run.
    """
    with ExitStack() as resources:
        log_to_file(None, config.logging.level)
        console = open_console(steps=1, use_rich=config.logging.console_use_rich)
        setup = _prepare(config, None, console, resources)
        columns = ["parameter", "shape", "size", "update"]
        console.table("Parameters by update", columns, group_rows(setup))
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
    config: Config, snapshot: Path | None, console: PlainConsole, resources: ExitStack
) -> Setup:
    """Start JAX, build the parts and say what they are."""
    device = start_jax(allow_cpu=config.train.allow_cpu, compile_cache=config.runtime.compile_cache)
    setup = set_up(config, snapshot)
    resources.callback(setup.data.close)
    for warning in config_warnings(setup.config):
        console.message(f"warning: {warning}")
    for line in start_lines(setup, device):
        console.message(line)
    return setup


def _open_checkpoints(request: Request, resources: ExitStack) -> Checkpoints | None:
    settings = request.config.checkpoint
    if not settings.enabled:
        return None
    checkpoints = Checkpoints(
        request.folder.inside(settings.root_dir or "checkpoints"),
        max_to_keep=settings.max_to_keep,
        keep_every=settings.keep_every,
        async_save=settings.async_save,
    )
    resources.callback(checkpoints.close)
    if request.resume is None and checkpoints.steps():
        raise ResumeError(
            f"{checkpoints.folder} already holds checkpoints, of another run; "
            "give another checkpoint.root_dir or --run-dir"
        )
    return checkpoints


def _read_saved(
    request: Request, checkpoints: Checkpoints | None, console: PlainConsole
) -> SavedRun | None:
    """Return the checkpoint to go on from, once its configuration is known to fit."""
    if request.resume is None:
        return None
    if checkpoints is None:
        raise ResumeError(
            "checkpoint.enabled is false: there is nothing to resume from; set it to true, "
            "or start a new run in another folder"
        )
    choice = checkpoints.choose(request.resume)
    if choice.step is None:
        console.message("nothing was saved yet: starting from the first step")
        return None
    for line in damage_lines(choice):
        console.message(f"warning: {line}")
    if choice.rejected:
        logged = last_logged_step(request.folder.inside(request.config.logging.metrics_file))
        reached = max(logged, choice.rejected[0][0])
        console.message(f"warning: {reached - choice.step} steps are trained again")
    saved = checkpoints.restore_run(choice.step)
    config = request.config.model_dump(mode="json")
    for change in check_identity(saved.meta["config"], config, request.allow_change):
        console.message(f"changed since the checkpoint: {change}")
        if change.key == "train.steps" and request.config.optim.decay_steps is None:
            console.message("  the learning rate decays until the new last step from here on")
    for change in changes(saved.meta["versions"], _versions()):
        console.message(f"warning: {change}; results may differ in their last bits from here on")
    return saved


def _check_fit(
    saved: SavedRun, checkpoints: Checkpoints | None, setup: Setup, allowed: Sequence[str]
) -> None:
    """Check that data and tokenizer are what they were, and that the parameters fit."""
    check_identity(saved.meta["identity"], setup.identity, allowed)
    if checkpoints:
        checkpoints.check_shapes(saved.progress.step, setup.learner.shapes.params)


def _versions() -> dict[str, str]:
    return {name: importlib.metadata.version(name) for name in PACKAGES}


class _Run:
    """A run whose parts are built: what the work in and around its loop has in common."""

    def __init__(
        self,
        request: Request,
        setup: Setup,
        checkpoints: Checkpoints | None,
        saved: SavedRun | None,
        resources: ExitStack,
    ):
        self.request, self.setup, self.config = request, setup, setup.config
        self.resources = resources
        self.checkpoints, self.saved = checkpoints, saved
        self.progress = saved.progress if saved else Progress()
        self.stopwatch = Stopwatch()
        self.last = LastValues()

    def open_tracker(self, console: PlainConsole) -> Tracker:
        """Open metrics, samples and Weights & Biases, next to the console."""
        folder, settings = self.request.folder, self.config.logging
        metrics = folder.inside(settings.metrics_file)
        for path in (metrics, folder.samples):
            keep_rows_up_to(self.progress.step, path)
        sinks: list[Sink] = [console, self.last, JsonLines(metrics, folder.samples)]
        if settings.wandb.enabled:
            sinks.append(
                WandbSink(
                    settings.wandb,
                    project=settings.project,
                    name=folder.path.name,
                    id_file=folder.wandb_id,
                    resolved=self.config.model_dump(mode="json"),
                    original=folder.original_config,
                )
            )
        return Tracker(sinks, self.progress.step)

    def go(self, tracker: Tracker, stop: StopRequest) -> int:
        """Compile, train, report; return the exit code."""
        setup, steps = self.setup, self.config.train.steps
        if self.saved:
            setup.data.set_state(self.saved.data_state)
        setup.data.start()
        compiled = compile_step(setup)
        tracker.message(f"compiled   training step in {compiled.seconds:.1f} s")
        state = self._start_state()
        if self.saved:
            tracker.message(f"resumed    after step {self.progress.step}")
        agenda = Agenda(setup, tracker, self.stopwatch, self.progress)
        save = (
            functools.partial(self._save, self.checkpoints, tracker) if self.checkpoints else None
        )
        actions = agenda.actions(compiled, save=save, profile=self._profile())
        tracker.progress(self.progress.step)
        self.stopwatch.lap()
        result = run_loop(
            compiled.step,
            state,
            self.progress,
            setup.data.train,
            actions,
            steps=steps,
            should_stop=stop.requested,
            stopwatch=self.stopwatch,
        )
        if result.ending is Ending.OUT_OF_DATA:
            tracker.message(f"the data ended after step {result.progress.step}")
        if self.checkpoints:
            self.checkpoints.wait()
            self._show_problems(self.checkpoints, tracker)
        lines = summary_lines(
            last_row=self.last.values,
            progress=result.progress,
            seconds=time.perf_counter() - self.request.started,
            trained=result.progress.tokens_seen - self.progress.tokens_seen,
            folder=self.request.folder.path,
            can_resume=self.checkpoints is not None,
            can_generate=self.config.model.backend == "megalodon",
            steps=steps,
            program=program_name(),
        )
        for line in lines:
            tracker.message(line)
        return stop.exit_code if result.ending is Ending.STOPPED else 0

    def _start_state(self) -> TrainState:
        if self.saved is None or self.checkpoints is None:
            return self.setup.learner.init()
        return self.checkpoints.restore_state(self.saved.progress.step, self.setup.learner.shapes)

    def _profile(self) -> Profile | None:
        train = self.config.train
        if not train.profile:
            return None
        folder = self.request.folder.inside(train.profile_dir or "profile")
        profile = Profile(folder, self.progress.step)
        self.resources.callback(profile.close)
        return profile

    def _save(
        self, checkpoints: Checkpoints, tracker: Tracker, state: TrainState, progress: Progress
    ) -> None:
        meta = {
            "config": self.request.config.model_dump(mode="json"),
            "identity": self.setup.identity,
            "versions": _versions(),
        }
        checkpoints.save(state, progress, self.setup.data.get_state(), meta)
        self._show_problems(checkpoints, tracker)

    def _show_problems(self, checkpoints: Checkpoints, tracker: Tracker) -> None:
        for problem in checkpoints.problems():
            tracker.message(f"warning: {problem}")
