"""One start of a run: compile, restore, train, and go back where a divergence asks for it."""

import shlex
from collections.abc import Sequence
from contextlib import ExitStack

import equinox as eqx
import jax.numpy as jnp

from chomp.checkpoint.checkpointer import Checkpointer, SavedRun
from chomp.checkpoint.compatibility import changes
from chomp.checkpoint.directory import CheckpointChoice, damage_lines
from chomp.errors import ChompError, DivergedError, Interrupted
from chomp.run.heartbeat import Phase
from chomp.run.record import EventKind
from chomp.tracking import (
    LatestMetrics,
    MultiTracker,
    TrackedRun,
    Tracker,
    open_trackers,
)
from chomp.trainer.callback import Callback, LogWindow, PendingWork, StepInfo
from chomp.trainer.callbacks.build import build_callbacks
from chomp.trainer.callbacks.checkpoint import report_problems
from chomp.trainer.callbacks.runner import CallbackRunner
from chomp.trainer.components import Components
from chomp.trainer.context import RunContext
from chomp.trainer.control import RunControl, run_control
from chomp.trainer.initial_weights import open_weights
from chomp.trainer.layer_norms import WatchedStep
from chomp.trainer.loop import LoopResult, StopReason, TrainLoop
from chomp.trainer.loop_context import LoopContext
from chomp.trainer.loss_monitor import Incident, LossMonitor, LossPolicy, Rewind
from chomp.trainer.output_files import OutputFiles
from chomp.trainer.parameter_average import AveragedStep, with_average
from chomp.trainer.program import CompiledStep, compile_step
from chomp.trainer.resume import data_position
from chomp.trainer.step_timer import StepTimer
from chomp.trainer.summary import summary_lines
from chomp.types import BatchStats, Progress, StepMetrics, TrainState


class Trainer:
    """Trains a run whose components are built, from the first step of this start to its last.

    Args:
        components: tokenizer, data and program.
        context: folder, processes, console, record and checkpoints of the run.
        saved: the checkpoint to go on from; None: from the beginning.
        callbacks: the user's own, besides those that the configuration asks for.
    """

    def __init__(
        self,
        components: Components,
        context: RunContext,
        saved: SavedRun | None = None,
        *,
        callbacks: Sequence[Callback] = (),
    ):
        self.components, self.config = components, components.config
        self.context, self.saved, self.callbacks = context, saved, callbacks
        self._latest = LatestMetrics()
        self._compiled: CompiledStep | None = None
        self._went_back = False
        recorder = context.monitor.recorder
        if saved and not set(saved.meta["skipped"]) <= set(recorder.skipped_batches):
            recorder.skip(saved.meta["skipped"])

    def fit(self) -> int:
        """Train until the run ends, going back after a divergence if that is wanted.

        Returns:
            The exit code: 0, or 128 + the signal that stopped the run.

        Raises:
            ChompError: what ended the run, or kept its last state from being saved.
        """
        saved, context = self.saved, self.context
        first = saved.progress if saved else Progress()
        while True:
            with ExitStack() as resources:
                files = resources.enter_context(self._open_files(saved))
                tracker = resources.enter_context(self._open_tracker(saved, files))
                try:
                    with context.coordinator.translate_peer_failures():
                        result = self._fit_from(saved, tracker, files)
                except Interrupted:
                    context.monitor.stopped(context.signals.stop)
                    tracker.message("stopped before the first step")
                    return context.signals.exit_code
                except Rewind as rewind:
                    saved = self._rewind(tracker, rewind)
                    continue
                return self._end(tracker, result, first)

    def _fit_from(
        self, saved: SavedRun | None, tracker: MultiTracker, files: OutputFiles
    ) -> LoopResult:
        """Compile, restore and train. Raises Interrupted, Rewind or a ChompError."""
        components, context, config = self.components, self.context, self.config
        position, note = (
            data_position(components, saved, context) if saved else (components.start, "")
        )
        components.data.set_state(position)
        components.data.train.start()
        control = run_control(
            context.coordinator,
            components.data,
            context.signals,
            config.checkpoint.save_every_minutes,
        )
        compiled = self._compile(tracker)
        progress = saved.progress if saved else Progress()
        state = self._restore_or_init(saved, control)
        if saved:
            tracker.message(f"resumed    after step {progress.step}")
        if note:
            tracker.message(f"data       {note}")
        window = LogWindow(*saved.meta["window"]) if saved else LogWindow()
        timer, losses = (
            StepTimer(context.monitor.heartbeat),
            self._loss_monitor(tracker, state, saved),
        )
        pending = PendingWork(window=window)
        loop = LoopContext(control, timer, tracker, files, losses, pending, progress)
        first_row = {"first_step_compile_time_s": compiled.seconds}
        callbacks = build_callbacks(components, context, loop, first_row, self.callbacks)
        with callbacks:
            tracker.progress(progress.step)
            if saved and not _make_up_for(saved, state, callbacks):
                return LoopResult(progress, StopReason.STOPPED)
            timer.lap()
            skipped = frozenset(context.monitor.recorder.skipped_batches)
            steps, step = config.train.steps, compiled.step
            if compiled.norms:
                every = config.train.log_every
                step = WatchedStep(step, compiled.norms, every=every, done=progress.step)
            if config.train.ema is not None:
                step = AveragedStep(step, config.train)
            return TrainLoop(step, control, callbacks, timer, steps, skipped).run(state, progress)

    def _compile(self, tracker: Tracker) -> CompiledStep:
        """Return the compiled step; a stop of any process interrupts the compilation."""
        context = self.context
        with context.monitor.heartbeat.during(Phase.COMPILING):
            compiled = self._compiled or self._compile_unless_stopped()
        self._compiled = compiled
        tracker.message(f"compiled   training step in {compiled.seconds:.1f} s")
        return compiled

    def _compile_unless_stopped(self) -> CompiledStep:
        # What is wrong with the data of a new run needn't wait for the compiler.
        check = self.components.data.train.check if self.saved is None else None
        with self.context.coordinator.interruptible("compile"):
            return self.context.signals.unless_stopped(self._compile_step, check=check)

    def _compile_step(self) -> CompiledStep:
        with_init = self.saved is None
        watch = self.config.logging.watch
        return compile_step(
            self.components.program, self.config.train, with_init=with_init, watch=watch
        )

    def _restore_or_init(self, saved: SavedRun | None, control: RunControl) -> TrainState:
        program, checkpointer = self.components.program, self.context.checkpointer
        with self.context.monitor.heartbeat.during(Phase.RESTORING):
            if saved is None or checkpointer is None:
                state = control.unless_stopped(self._init)
            else:
                step = saved.progress.step
                state = control.unless_stopped(checkpointer.restore_state, step, program.shapes)
            return state if self.config.train.ema is None else with_average(state)

    def _init(self) -> TrainState:
        """Make the state before the first step, with fresh or with another run's parameters."""
        state = self.components.program.init(self.config.train.seed)
        parent = self.context.monitor.recorder.record.parent
        weights = open_weights(self.components, parent.step if parent else 0)
        if weights is None:
            return state
        self.context.console.message(f"weights    of {weights}")
        params = weights.load(self.components.program.shapes.params)
        return eqx.tree_at(lambda state: state.params, state, params)

    def _loss_monitor(
        self, tracker: Tracker, state: TrainState, saved: SavedRun | None
    ) -> LossMonitor:
        def report(incident: Incident) -> None:
            self.context.monitor.recorder.event(
                EventKind.DIVERGED, step=incident.step, batch=incident.batch, what=incident.what
            )
            tracker.message(
                f"warning: {incident.what} (batch {incident.batch}, fingerprint "
                f"{incident.batch_hash})"
            )

        losses = saved.meta["losses"] if saved else ()
        # Checkpoints of earlier versions don't know how many it were.
        in_a_row = saved.meta.get("rejected_in_a_row", 0) if saved else 0
        policy = LossPolicy.of(self.config.train)
        run = shlex.quote(str(self.context.folder.path))
        return LossMonitor(policy, losses, int(state.rejected), report, in_a_row=in_a_row, run=run)

    def _rewind(self, tracker: Tracker, rewind: Rewind) -> SavedRun | None:
        """Go back to before the incidents; their batches will be left out.

        Raises:
            DivergedError: that was done too often.
        """
        monitor, limit = self.context.monitor, self.config.train.divergence_limit
        if monitor.recorder.rewinds >= limit:
            raise DivergedError(
                f"{rewind}; the run was rewound {limit} times already (train.divergence_limit): "
                "resume it with a lower optim.lr (--allow-change optim.lr)"
            )
        batches = [incident.batch for incident in rewind.incidents]
        saved = self._saved_before(rewind.incidents[0].step, tracker)
        step = saved.progress.step if saved else 0
        self._went_back = True
        monitor.recorder.rewind(monitor.heartbeat.now().finished, step, batches)
        monitor.heartbeat.finished(step)
        tracker.message(
            f"warning: {rewind}; going back to step {step}, and leaving out "
            f"{'batch' if len(batches) == 1 else 'batches'} {', '.join(map(str, batches))}"
        )
        return saved

    def _saved_before(self, step: int, tracker: Tracker) -> SavedRun | None:
        """Return the newest good checkpoint of an earlier step, and set newer ones aside."""
        checkpointer, coordinator = self.context.checkpointer, self.context.coordinator
        if checkpointer is None:
            return None
        checkpointer.wait()
        choice = CheckpointChoice(
            *coordinator.on_leader("rewind", checkpointer.newest_good, step - 1)
        )
        for line in damage_lines(choice):
            tracker.message(f"warning: {line}")
        saved = None if choice.step is None else checkpointer.restore_run(choice.step)
        coordinator.on_leader("set aside", _set_aside, checkpointer, choice.step or 0)
        return saved

    def _open_files(self, saved: SavedRun | None) -> OutputFiles:
        context = self.context
        return OutputFiles(
            context.folder if context.coordinator.is_leader else None,
            self.config.logging,
            self.components.data.fingerprint,
            context.console,
            saved,
            branched=saved is not None and bool(context.is_branch_point(saved.progress.step)),
        )

    def _open_tracker(self, saved: SavedRun | None, files: OutputFiles) -> MultiTracker:
        """Open console, metrics, samples and other trackers, of which only the leader has any."""
        console, settings = self.context.console, self.config.logging
        trackers: list[Tracker] = [self._latest]
        if files.lines:
            trackers = [console, self._latest, files.lines]
            trackers += open_trackers(settings, self._tracked_run(saved, files), console)
        return MultiTracker(trackers, saved.progress.step if saved else 0)

    def _tracked_run(self, saved: SavedRun | None, files: OutputFiles) -> TrackedRun:
        """Return what trackers are told."""
        folder = self.context.folder
        # Where nothing has changed, rows that were taken out come again with the same values.
        differs = self._went_back or (saved is not None and self._changed(saved))
        return TrackedRun(
            folder.path,
            self.config.model_dump(mode="json"),
            files.rows_of,
            folder.inside(self.config.logging.metrics_file),
            going_back=self._went_back,
            outdated=files.took_out and differs,
        )

    def _changed(self, saved: SavedRun) -> bool:
        given = self.components.given.model_dump(mode="json")
        found = changes(saved.meta["config"], given)
        return any(
            change.key.startswith(("model.", "data.", "optim.", "train.")) for change in found
        )

    def _end(self, tracker: Tracker, result: LoopResult, first: Progress) -> int:
        """Record how the run ended, show its summary and return the exit code.

        Raises:
            ChompError: the last state is not saved.
        """
        context, step = self.context, result.progress.step
        stopped = result.reason is StopReason.STOPPED
        if stopped:
            context.monitor.stopped(context.signals.stop)
        else:
            context.monitor.end(result.reason.value)
        saved_step = self._wait_for_saves(context.checkpointer)
        if result.reason is StopReason.OUT_OF_DATA:
            tracker.message(f"the data ended after step {step}")
        for line in summary_lines(self.components, context, result, first, self._latest.values):
            tracker.message(line)
        if saved_step not in (None, step):
            raise ChompError(
                f"the last state, of step {step}, could not be saved: the newest checkpoint is of "
                f"step {saved_step}; make room on the disk, and resume"
            )
        return context.signals.exit_code if stopped else 0

    def _wait_for_saves(self, checkpointer: Checkpointer | None) -> int | None:
        """Return the step of the last good checkpoint, 0 without any; None: none are kept."""
        if checkpointer is None:
            return None
        with self.context.monitor.heartbeat.during(Phase.SAVING):
            checkpointer.wait()
        report_problems(checkpointer, self.context)
        return checkpointer.last_good or 0


def _set_aside(checkpointer: Checkpointer, step: int) -> None:
    checkpointer.set_aside_after(step)


def _make_up_for(saved: SavedRun, state: TrainState, callbacks: CallbackRunner) -> bool:
    """Do what a stop kept from the saved step; return whether it could be finished this time."""
    unfinished = saved.meta["unfinished"]
    if not unfinished["actions"]:
        return True
    zero = jnp.zeros(())
    info = StepInfo(
        state,
        StepMetrics(zero, zero, zero, zero),
        saved.progress,
        BatchStats((), 0, 0, 0, 0, 0, (), 0),
    )
    callbacks.make_up(info, unfinished["actions"], unfinished["row"])
    if callbacks.pending.failure:
        raise callbacks.pending.failure
    return not callbacks.pending.callbacks
