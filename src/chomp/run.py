"""A training run, from its configuration to its summary: the only module that knows all parts."""

import importlib.metadata
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import jax.numpy as jnp

from chomp.agenda import Agenda
from chomp.checkpoint import Checkpoints, SavedRun
from chomp.config import Config, config_warnings
from chomp.data import is_stuck
from chomp.errors import DivergedError, Interrupted, ResumeError
from chomp.identity import changes, check_identity
from chomp.parts import Compiled, Setup, compile_step, derived_values, set_up
from chomp.report import dry_run_lines, group_rows, program_name, start_lines, summary_lines
from chomp.run_folder import RunFolder
from chomp.runtime import memory_readings, start_jax
from chomp.signals import Signals, work_left_behind
from chomp.tracking import (
    JsonLines,
    LastValues,
    PlainConsole,
    Sink,
    Tracker,
    WandbSink,
    keep_rows_up_to,
    log_to_file,
    open_console,
    require_wandb,
)
from chomp.training import (
    Action,
    Ending,
    Incident,
    LoopResult,
    LossWatch,
    Moment,
    Profile,
    Reaction,
    Rewind,
    Stopwatch,
    perform,
    run_loop,
)
from chomp.types import BatchStats, Progress, StepMetrics, TrainState

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
        signals = resources.enter_context(Signals())
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
        try:
            setup = signals.unless_stopped(
                lambda: _prepare(config, folder.tokenizer, console, resources)
            )
        except Interrupted:
            console.message("stopped before the first step")
            return signals.exit_code
        if saved is None:
            setup.tokenizer.save(folder.tokenizer)
        else:
            _check_fit(saved, checkpoints, setup, request.allow_change)
        resolved = config.model_dump(mode="json") | {"derived": derived_values(setup)}
        folder.write_configs(request.original, resolved)
        if checkpoints and saved and (aside := checkpoints.set_aside_after(saved.progress.step)):
            console.message(f"newer checkpoints set aside in {aside}")
        return _Run(request, setup, checkpoints, console, signals, saved).go()


def work_goes_on() -> bool:
    """Whether threads of an ended run are still busy with what a stop has interrupted."""
    return work_left_behind() or is_stuck()


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
    step = checkpoints.resolve(request.resume)
    if step is None:
        console.message("nothing was saved yet: starting from the first step")
        return None
    saved = checkpoints.restore_run(step)
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
        console: PlainConsole,
        signals: Signals,
        saved: SavedRun | None,
    ):
        self.request, self.setup, self.config = request, setup, setup.config
        self.checkpoints, self.console, self.signals = checkpoints, console, signals
        self.data_start = setup.data.get_state()
        self.last = LastValues()
        self.skipped: set[int] = set(saved.meta["skipped"] if saved else ())
        self.saved, self.rewinds = saved, 0
        self.compiled: Compiled | None = None

    def go(self) -> int:
        """Train until the run ends, going back after a divergence if that is wanted."""
        saved = self.saved
        first = saved.progress if saved else Progress()
        while True:
            with self._open_tracker(saved) as tracker:
                try:
                    result = self._attempt(tracker, saved)
                except Interrupted:
                    tracker.message("stopped before the first step")
                    return self.signals.exit_code
                except Rewind as rewind:
                    saved = self._rewind(tracker, rewind)
                    continue
                self._summarize(tracker, result, first)
                return self.signals.exit_code if result.ending is Ending.STOPPED else 0

    def _attempt(self, tracker: Tracker, saved: SavedRun | None) -> LoopResult:
        """Compile, restore and train. Raises Interrupted, Rewind or a ChompError."""
        setup = self.setup
        setup.data.set_state(saved.data_state if saved else self.data_start)
        setup.data.train.start()
        compiled = self.signals.unless_stopped(self._compile)
        tracker.message(f"compiled   training step in {compiled.seconds:.1f} s")
        state = self.signals.unless_stopped(lambda: self._start_state(saved))
        progress = saved.progress if saved else Progress()
        if saved:
            tracker.message(f"resumed    after step {progress.step}")
        stopwatch = Stopwatch()
        watch = self._watch(tracker, state, saved)
        agenda = Agenda(setup, tracker, stopwatch, self.signals, watch, progress)
        with ExitStack() as resources:
            save = (lambda moment: self._save(moment, watch)) if self.checkpoints else None
            actions = agenda.actions(
                compiled, save=save, profile=self._profile(progress, resources)
            )
            tracker.progress(progress.step)
            if saved and not _make_up_for(saved, state, actions):
                return LoopResult(progress, Ending.STOPPED)
            stopwatch.lap()
            return run_loop(
                compiled.step,
                state,
                progress,
                setup.data.train,
                actions,
                steps=self.config.train.steps,
                should_stop=self.signals.stop_requested,
                stopwatch=stopwatch,
                skipped=self.skipped,
            )

    def _compile(self) -> Compiled:
        if self.compiled is None:
            self.compiled = compile_step(self.setup)
        return self.compiled

    def _start_state(self, saved: SavedRun | None) -> TrainState:
        if saved is None or self.checkpoints is None:
            return self.setup.learner.init()
        return self.checkpoints.restore_state(saved.progress.step, self.setup.learner.shapes)

    def _watch(self, tracker: Tracker, state: TrainState, saved: SavedRun | None) -> LossWatch:
        train = self.config.train
        reaction = Reaction(
            to_divergence=train.on_divergence,
            to_spikes=train.on_spike,
            threshold=train.spike_threshold,
            window=train.spike_window,
            limit=train.divergence_limit,
        )

        def report(incident: Incident) -> None:
            tracker.message(
                f"warning: {incident.what} (batch {incident.batch}, fingerprint "
                f"{incident.batch_hash})"
            )

        losses = saved.meta["losses"] if saved else ()
        return LossWatch(reaction, losses, int(state.rejected), report)

    def _rewind(self, tracker: Tracker, rewind: Rewind) -> SavedRun | None:
        """Go back to before the incidents; their batches will be left out.

        Raises:
            DivergedError: that was done too often.
        """
        self.rewinds += 1
        limit = self.config.train.divergence_limit
        if self.rewinds > limit:
            raise DivergedError(
                f"{rewind}; the run was rewound {limit} times already (train.divergence_limit): "
                "resume it with a lower optim.lr (--allow-change optim.lr)"
            )
        batches = [incident.batch for incident in rewind.incidents]
        self.skipped.update(batches)
        first = rewind.incidents[0].step
        saved = None
        if self.checkpoints:
            self.checkpoints.wait()
            before = [step for step in self.checkpoints.steps() if step < first]
            saved = self.checkpoints.restore_run(before[-1]) if before else None
        step = saved.progress.step if saved else 0
        tracker.message(
            f"warning: {rewind}; going back to step {step}, and leaving out "
            f"{'batch' if len(batches) == 1 else 'batches'} {', '.join(map(str, batches))}"
        )
        return saved

    def _open_tracker(self, saved: SavedRun | None) -> Tracker:
        """Open metrics, samples and Weights & Biases, next to the console."""
        folder, settings = self.request.folder, self.config.logging
        step = saved.progress.step if saved else 0
        unfinished = saved.meta["unfinished"]["actions"] if saved else []
        metrics = folder.inside(settings.metrics_file)
        keep_rows_up_to(step - ("log" in unfinished), metrics)
        keep_rows_up_to(step - ("sample" in unfinished), folder.samples)
        sinks: list[Sink] = [self.console, self.last, JsonLines(metrics, folder.samples)]
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
        return Tracker(sinks, step)

    def _summarize(self, tracker: Tracker, result: LoopResult, first: Progress) -> None:
        progress, steps = result.progress, self.config.train.steps
        if result.ending is Ending.OUT_OF_DATA:
            tracker.message(f"the data ended after step {progress.step}")
        lines = summary_lines(
            last_row=self.last.values,
            progress=progress,
            seconds=time.perf_counter() - self.request.started,
            trained=progress.tokens_seen - first.tokens_seen,
            folder=self.request.folder.path,
            can_resume=self.checkpoints is not None,
            can_generate=self.config.model.backend == "megalodon",
            steps=steps,
            program=program_name(),
        )
        for line in lines:
            tracker.message(line)

    def _profile(self, progress: Progress, resources: ExitStack) -> Profile | None:
        train = self.config.train
        if not train.profile:
            return None
        folder = self.request.folder.inside(train.profile_dir or "profile")
        profile = Profile(folder, progress.step)
        resources.callback(profile.close)
        return profile

    def _save(self, moment: Moment, watch: LossWatch) -> None:
        assert self.checkpoints is not None
        meta = {
            "config": self.request.config.model_dump(mode="json"),
            "identity": self.setup.identity,
            "versions": _versions(),
            "losses": watch.losses,
            "skipped": sorted(self.skipped),
            "unfinished": {"actions": moment.pending, "row": moment.row if moment.pending else {}},
        }
        self.checkpoints.save(moment.state, moment.progress, self.setup.data.get_state(), meta)


def _make_up_for(saved: SavedRun, state: TrainState, actions: list[Action]) -> bool:
    """Do what a stop kept from the saved step; return whether it could be finished this time."""
    unfinished = saved.meta["unfinished"]
    if not unfinished["actions"]:
        return True
    zero = jnp.zeros(())
    moment = Moment(
        state,
        StepMetrics(zero, zero, zero, zero),
        saved.progress,
        BatchStats(0, 0, 0, 0, 0, 0, ()),
        row=dict(unfinished["row"]),
    )
    perform(actions, moment, lambda action: action.name in unfinished["actions"])
    return not moment.pending
