"""A start of a run: compile, restore, train, and go back where a divergence asks for it."""

import functools
import shlex
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from chomp.checkpoint.checkpointer import Checkpointer, SavedRun
from chomp.checkpoint.compatibility import ENVIRONMENT, package_versions
from chomp.checkpoint.directory import CheckpointChoice, damage_lines
from chomp.coordinator import Coordinator
from chomp.data import merge_states
from chomp.errors import ChompError, DivergedError, Interrupted, ResumeError
from chomp.run.goodput import goodput_line
from chomp.run.heartbeat import Phase
from chomp.run.ledger import Ledger
from chomp.run.monitor import RunMonitor
from chomp.run.record import EventKind
from chomp.run.run_folder import RunFolder
from chomp.system.atomic_file import remedy
from chomp.system.jax_runtime import cpu_threads, numeric_environment
from chomp.system.signals import Signals
from chomp.tracking import (
    JsonLines,
    LatestMetrics,
    MultiTracker,
    PlainConsole,
    RestoredLines,
    Tracker,
    WandbTracker,
    keep_rows_up_to,
    restore_lines,
)
from chomp.trainer import (
    Callback,
    Incident,
    LogWindow,
    LoopResult,
    LossMonitor,
    LossPolicy,
    Profile,
    Rewind,
    StepInfo,
    StepTimer,
    StopReason,
    perform,
    run_loop,
)
from chomp.trainer.callbacks.build import CallbackBuilder
from chomp.trainer.components import Components
from chomp.trainer.control import RunControl
from chomp.trainer.programs import CompiledStep, compile_step
from chomp.trainer.summary import program_name, summary_lines
from chomp.types import BatchStats, Progress, StepMetrics, TrainState


class Trainer:
    """One start of a run whose parts are built, from its first step here to its last.

    Args:
        setup: the parts.
        folder: where the run lives.
        checkpoints: of the run; None: it keeps none.
        saved: where it goes on from; None: from the beginning.
        console: shows what happens.
        signals: what is asked for from outside.
        history: is told what the run does and what happens to it.
        started: `time.perf_counter()` when the command began.
        cohort: the processes of the run.
        place_of: returns where the data of a saved run goes on now, and what to say about that.
    """

    def __init__(
        self,
        setup: Components,
        folder: RunFolder,
        checkpoints: Checkpointer | None,
        saved: SavedRun | None,
        console: PlainConsole,
        signals: Signals,
        history: RunMonitor,
        started: float,
        cohort: Coordinator,
        place_of: Callable[[SavedRun], tuple[dict[str, Any], str]],
    ):
        self.setup, self.config, self.folder = setup, setup.config, folder
        self.checkpoints, self.console, self.signals = checkpoints, console, signals
        self.history, self.started, self.cohort = history, started, cohort
        self.place_of = place_of
        self.last = LatestMetrics()
        self.saved = saved
        lineage = history.lineage
        if saved and not set(saved.meta["skipped"]) <= set(lineage.skipped_batches):
            lineage.skip(saved.meta["skipped"])
        self.compiled: CompiledStep | None = None
        self._lines: JsonLines | None = None
        self._ledger: Ledger | None = None
        self._finished = 0

    def go(self) -> int:
        """Train until the run ends, going back after a divergence if that is wanted."""
        saved = self.saved
        first = saved.progress if saved else Progress()
        while True:
            with self._open_tracker(saved) as tracker:
                try:
                    with self.cohort.explained():
                        result = self._attempt(tracker, saved)
                except Interrupted:
                    self.history.stopped(self.signals.stop)
                    tracker.message("stopped before the first step")
                    return self.signals.exit_code
                except Rewind as rewind:
                    saved = self._rewind(tracker, rewind)
                    continue
                if result.ending is StopReason.STOPPED:
                    self.history.stopped(self.signals.stop)
                else:
                    self.history.end(result.ending.value)
                saved_step = self._wait_for_saves()
                self._summarize(tracker, result, first)
                if saved_step not in (None, result.progress.step):
                    raise ChompError(
                        f"the last state, of step {result.progress.step}, could not be saved: the "
                        f"newest checkpoint is of step {saved_step}; make room on the disk, and "
                        "resume"
                    )
                return self.signals.exit_code if result.ending is StopReason.STOPPED else 0

    def _wait_for_saves(self) -> int | None:
        """Return the step of the last good checkpoint, 0 without any; None: none are kept."""
        if self.checkpoints is None:
            return None
        with self.history.heartbeat.during(Phase.SAVING):
            self.checkpoints.wait()
        self._show_problems(self.checkpoints)
        return self.checkpoints.last_good or 0

    def _attempt(self, tracker: MultiTracker, saved: SavedRun | None) -> LoopResult:
        """Compile, restore and train. Raises Interrupted, Rewind or a ChompError."""
        setup = self.setup
        place, note = self.place_of(saved) if saved else (setup.start, "")
        setup.data.set_state(place)
        setup.data.train.start()
        heartbeat = self.history.heartbeat
        steering = RunControl(
            self.cohort, self.signals, setup.data, self.config.checkpoint.save_every_minutes
        )
        with heartbeat.during(Phase.COMPILING):
            # What is wrong with the data of a new run needn't wait for the compiler.
            check = setup.data.train.check if saved is None else lambda: None
            guard = functools.partial(self.signals.unless_stopped, check=check)
            compiled = self.cohort.interruptible("compile", guard, self._compile)
        tracker.message(f"compiled   training step in {compiled.seconds:.1f} s")
        with heartbeat.during(Phase.RESTORING):
            state = steering.guard(lambda: self._start_state(saved))
        progress = saved.progress if saved else Progress()
        if saved:
            tracker.message(f"resumed    after step {progress.step}")
        if note:
            tracker.message(f"data       {note}")
        stopwatch = StepTimer(self._tell)
        watch = self._watch(tracker, state, saved)
        window = LogWindow(*saved.meta["window"]) if saved else LogWindow()
        agenda = CallbackBuilder(setup, tracker, stopwatch, steering, watch, progress, window)
        with ExitStack() as resources:
            save = (lambda moment: self._save(moment, watch)) if self.checkpoints else None
            actions = agenda.actions(
                compiled,
                save=save,
                profile=self._profile(progress, resources),
                record=self._open_ledger(progress, saved, resources),
            )
            actions.insert(0, Callback("heartbeat", self._beat, 1))
            tracker.progress(progress.step)
            self._finished = progress.step
            if saved and not _make_up_for(saved, state, actions):
                return LoopResult(progress, StopReason.STOPPED)
            stopwatch.lap()
            return run_loop(
                compiled.step,
                state,
                progress,
                steering.stream,
                actions,
                steps=self.config.train.steps,
                should_stop=steering.should_stop,
                stopwatch=stopwatch,
                skipped=frozenset(self.history.lineage.skipped_batches),
            )

    def _beat(self, moment: StepInfo) -> None:
        self._finished = moment.progress.step
        self.history.heartbeat.finished(self._finished)

    def _tell(self, doing: str) -> None:
        phase = Phase[doing.upper()]
        # The next step begins with the wait for its batch.
        step = self._finished + 1 if phase is Phase.WAITING else None
        self.history.heartbeat.enter(phase, step)

    def _compile(self) -> CompiledStep:
        if self.compiled is None:
            is_new = self.saved is None
            meanwhile = self.setup.learner.prepare if is_new else lambda: None
            self.compiled = compile_step(self.setup, meanwhile)
        return self.compiled

    def _start_state(self, saved: SavedRun | None) -> TrainState:
        if saved is None or self.checkpoints is None:
            return self.setup.learner.init()
        return self.checkpoints.restore_state(saved.progress.step, self.setup.learner.shapes)

    def _watch(
        self, tracker: MultiTracker, state: TrainState, saved: SavedRun | None
    ) -> LossMonitor:
        train = self.config.train
        reaction = LossPolicy(
            to_divergence=train.on_divergence,
            to_spikes=train.on_spike,
            threshold=train.spike_threshold,
            window=train.spike_window,
            limit=train.divergence_limit,
        )

        def report(incident: Incident) -> None:
            self.history.lineage.event(
                EventKind.DIVERGED, step=incident.step, batch=incident.batch, what=incident.what
            )
            tracker.message(
                f"warning: {incident.what} (batch {incident.batch}, fingerprint "
                f"{incident.batch_hash})"
            )

        losses = saved.meta["losses"] if saved else ()
        # Checkpoints of earlier versions don't know how many it were.
        in_a_row = saved.meta.get("rejected_in_a_row", 0) if saved else 0
        run = shlex.quote(str(self.folder.path))
        return LossMonitor(
            reaction, losses, int(state.rejected), report, in_a_row=in_a_row, run=run
        )

    def _rewind(self, tracker: MultiTracker, rewind: Rewind) -> SavedRun | None:
        """Go back to before the incidents; their batches will be left out.

        Raises:
            DivergedError: that was done too often.
        """
        limit = self.config.train.divergence_limit
        if self.history.lineage.rewinds >= limit:
            raise DivergedError(
                f"{rewind}; the run was rewound {limit} times already (train.divergence_limit): "
                "resume it with a lower optim.lr (--allow-change optim.lr)"
            )
        batches = [incident.batch for incident in rewind.incidents]
        first = rewind.incidents[0].step
        saved = None
        if checkpoints := self.checkpoints:
            checkpoints.wait()
            choice = CheckpointChoice(
                *self.cohort.from_leader("rewind", lambda: checkpoints.newest_good(first - 1))
            )
            for line in damage_lines(choice):
                tracker.message(f"warning: {line}")
            step = choice.step
            saved = None if step is None else checkpoints.restore_run(step)
            self.cohort.from_leader("set aside", lambda: _set_aside(checkpoints, step or 0))
        step = saved.progress.step if saved else 0
        self.history.lineage.rewind(self.history.heartbeat.now().finished, step, batches)
        self.history.heartbeat.finished(step)
        tracker.message(
            f"warning: {rewind}; going back to step {step}, and leaving out "
            f"{'batch' if len(batches) == 1 else 'batches'} {', '.join(map(str, batches))}"
        )
        return saved

    def _open_tracker(self, saved: SavedRun | None) -> MultiTracker:
        """Open metrics, samples and Weights & Biases, next to the console."""
        folder, settings = self.folder, self.config.logging
        step = saved.progress.step if saved else 0
        if not self.cohort.is_leader:
            return MultiTracker([self.last], step)
        unfinished = saved.meta["unfinished"] if saved else {"actions": [], "row": {}}
        metrics = folder.inside(settings.metrics_file).resolve()  # whose it is, is known
        # What the saved step still has to write was written before, if it was resumed before.
        keep_rows_up_to(step - bool(unfinished["row"]), metrics)
        keep_rows_up_to(step - ("sample" in unfinished["actions"]), folder.samples)
        keep_rows_up_to(step, folder.ledger)
        rows = self._bring_back("metrics", metrics, saved)
        samples = self._bring_back("samples", folder.samples, saved)
        lines = JsonLines(
            metrics, folder.samples, self.console.message, (rows.there, samples.there)
        )
        lines.bring_back(rows.lines, samples.lines)
        self._lines = lines
        sinks: list[Tracker] = [self.console, self.last, lines]
        if settings.wandb.enabled:
            sinks.append(
                WandbTracker(
                    settings.wandb,
                    project=settings.project,
                    name=folder.path.name,
                    id_file=folder.wandb_id,
                    resolved=self.config.model_dump(mode="json"),
                    original=folder.original_config,
                )
            )
        return MultiTracker(sinks, step)

    def _bring_back(self, name: str, path: Path, saved: SavedRun | None) -> RestoredLines:
        """Find what a file lacks of what it had at the checkpoint, and say what is lost.

        Raises:
            ResumeError: the file can't be read or cut.
        """
        kept = saved.meta.get("lines", {}).get(name) if saved else None
        try:
            found = restore_lines(path, kept)
        except OSError as error:
            raise ResumeError(
                f"{path} can't be used ({error.strerror}); {remedy(error)} and resume again"
            ) from error
        step = saved.progress.step if saved else 0
        if found.lines:
            self.console.message(
                f"{path}: {len(found.lines)} line(s) that had no room are brought back"
            )
        if found.lost and kept:
            self.console.message(
                f"warning: {path}: {found.lost} of its {kept['lines']} lines up to step {step} are "
                "lost: they were never brought to the disk, or taken out"
            )
        return found

    def _summarize(self, tracker: MultiTracker, result: LoopResult, first: Progress) -> None:
        progress, steps = result.progress, self.config.train.steps
        if result.ending is StopReason.OUT_OF_DATA:
            tracker.message(f"the data ended after step {progress.step}")
        lines = summary_lines(
            last_row=self.last.values,
            progress=progress,
            seconds=time.perf_counter() - self.started,
            trained=progress.tokens_seen - first.tokens_seen,
            folder=self.folder.path,
            can_resume=self.checkpoints is not None,
            can_generate=self.config.model.backend == "megalodon",
            steps=steps,
            stopped=result.ending is not StopReason.FINISHED,
            program=program_name(),
        )
        for line in [*lines, goodput_line(self.history.goodput())]:
            tracker.message(line)

    def _open_ledger(
        self, progress: Progress, saved: SavedRun | None, resources: ExitStack
    ) -> Callable[[int, int, BatchStats], None] | None:
        if not (self.config.logging.ledger_every and self.cohort.is_leader):
            return None
        found = self._bring_back("ledger", self.folder.ledger, saved)
        ledger = Ledger(
            self.folder.ledger,
            self.setup.data.fingerprint,
            progress.step,
            self.console.message,
            found.there,
            found.lines,
        )
        self._ledger = ledger
        resources.callback(ledger.close)
        return ledger.record

    def _profile(self, progress: Progress, resources: ExitStack) -> Profile | None:
        train = self.config.train
        if not (train.profile and self.cohort.is_leader):
            return None
        folder = self.folder.inside(train.profile_dir or "profile")
        profile = Profile(folder, progress.step)
        resources.callback(profile.close)
        return profile

    def _save(self, moment: StepInfo, watch: LossMonitor) -> None:
        assert self.checkpoints is not None
        if self.signals.save_requested:
            self.history.lineage.event(EventKind.SAVE, step=moment.progress.step)
            self.console.message(f"SIGUSR1: saving step {moment.progress.step}")
        meta = {
            "config": self.setup.given.model_dump(mode="json"),
            "identity": self.setup.identity,
            "versions": package_versions(),
            ENVIRONMENT: numeric_environment(),
            "cpu_threads": cpu_threads() if jax.default_backend() == "cpu" else None,
            "losses": watch.losses,
            "rejected_in_a_row": watch.in_a_row,
            "skipped": self.history.lineage.skipped_batches,
            "window": moment.window,
            "unfinished": {"actions": moment.pending, "row": moment.row},
            "lines": self._tails(),
        }
        states = self.setup.data.get_state()
        data_state = self.cohort.exchange("data state", states, decide=merge_states)
        self.checkpoints.save(moment.state, moment.progress, data_state, meta)
        self._show_problems(self.checkpoints)

    def _tails(self) -> dict[str, Any]:
        """Return what the run's files lack as long as their disk is full."""
        tails = self._lines.tails() if self._lines else {}
        if self._ledger:
            tails |= {"ledger": self._ledger.tail()}
        return {name: tail.as_values() for name, tail in tails.items()}

    def _show_problems(self, checkpoints: Checkpointer) -> None:
        for problem in checkpoints.problems():
            self.console.message(f"warning: {problem}")
            self.history.lineage.event(EventKind.NOT_SAVED, what=problem)


def _set_aside(checkpoints: Checkpointer, step: int) -> None:
    checkpoints.set_aside_after(step)


def _make_up_for(saved: SavedRun, state: TrainState, actions: list[Callback]) -> bool:
    """Do what a stop kept from the saved step; return whether it could be finished this time."""
    unfinished = saved.meta["unfinished"]
    if not unfinished["actions"]:
        return True
    zero = jnp.zeros(())
    moment = StepInfo(
        state,
        StepMetrics(zero, zero, zero, zero),
        saved.progress,
        BatchStats(0, 0, 0, 0, 0, 0, (), 0),
        row=dict(unfinished["row"]),
    )
    names = {*unfinished["actions"], *(a.name for a in actions if a.reports and moment.row)}
    perform(actions, moment, lambda action: action.name in names)
    if moment.failure:
        raise moment.failure
    return not moment.pending
