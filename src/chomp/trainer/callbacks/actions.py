"""Periodic work around the training step: log, evaluate, sample, save, profile."""

import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol, TypeVar

import jax
import numpy as np
import optax

from chomp.errors import ChompError, Interrupted
from chomp.trainer.loop import LogWindow, StepInfo
from chomp.trainer.step_timer import StepTimer
from chomp.types import Batch, BatchStats, Progress, TrainState

Row = dict[str, Any]
T = TypeVar("T")
Guard = Callable[[Callable[[], T]], T]
"""Does work and returns its result, or raises Interrupted as soon as a stop is requested."""


class Tracker(Protocol):
    """Where rows go."""

    def log(self, row: Row) -> None:
        """Write one row of metrics."""
        ...

    def progress(self, step: int) -> None:
        """Show that `step` is finished."""
        ...


class EvaluationData(Protocol):
    """The evaluation documents as rows."""

    @property
    def targets(self) -> int:
        """Labels that count in one pass."""
        ...

    @property
    def bytes(self) -> int:
        """UTF-8 bytes of the text that they stand for."""
        ...

    def batches(self) -> Iterable[Batch]:
        """Return batches [1, batch, time] that hold every target once."""
        ...


@contextmanager
def idle(stopwatch: StepTimer, state: TrainState, doing: str) -> Iterator[None]:
    """Leave the time inside out of the training time, once the device has finished its steps."""
    jax.block_until_ready(state.step)
    with stopwatch.paused(doing):
        yield


class LogMetrics:
    """Writes a row every `every` steps and wherever another action has something to say.

    Only here do metrics come to the host. Runs after every step, behind the actions that add to
    the row.
    """

    def __init__(
        self,
        tracker: Tracker,
        stopwatch: StepTimer,
        *,
        every: int,
        steps: int,
        progress: Progress,
        window: LogWindow,
        rates: dict[str, optax.Schedule],
        constants: Row,
        first_row: Row,
        row_tokens: int,
        memory: Callable[[], dict[str, float]],
        utilization: Callable[[float], Row],
        read_retries: Callable[[], int],
        check: Callable[[], None],
    ):
        """Prepare to log.

        Args:
            tracker: takes the rows.
            stopwatch: measures the steps.
            every: steps between rows.
            steps: the last step, which always has a row.
            progress: counts at the start.
            window: the steps before the start that no row tells of.
            rates: learning rate by its name in the row.
            constants: values that every row repeats.
            first_row: values of the first row only.
            row_tokens: positions of a whole batch, padding included.
            memory: current memory readings.
            utilization: what a step time in seconds says about the use of the device.
            read_retries: how often a read was repeated since this process began.
            check: judges the steps that a row tells of; called behind each.
        """
        self._tracker, self._stopwatch = tracker, stopwatch
        self._every, self._steps = every, steps
        self._last, self._rates = progress, rates
        self._constants, self._first_row = constants, first_row
        self._row_tokens, self._memory, self._check = row_tokens, memory, check
        self._read_retries, self._utilization = read_retries, utilization
        self._window = window
        self._last_seen = progress.step
        for rate in rates.values():
            rate(0)  # compiles its few operations, which would count as time of the second row

    def __call__(self, moment: StepInfo) -> None:
        """Count the step, and write a row if one is due.

        A row that still waits for the work of an interrupted action is left in the moment.
        """
        step = moment.progress.step
        data_ended = step == self._last_seen
        if not data_ended:
            self._last_seen = step
            self._tracker.progress(step)
            steps, tokens = self._window
            self._window = LogWindow(steps + 1, tokens + moment.stats.tokens)
        if data_ended and step == self._last.step:  # the row is there; an evaluation may be new
            if moment.row and not moment.pending:
                self._tracker.log({"step": step} | moment.row)
                moment.row = {}
        elif moment.pending:
            moment.row = self._row(moment)
            self._check()
        elif moment.row or data_ended or step == self._steps or step % self._every == 0:
            self._tracker.log(self._row(moment))
            moment.row = {}
            self._check()
        moment.window = self._window

    def _row(self, moment: StepInfo) -> Row:
        loss, grad_norm, rejected = jax.device_get(
            (moment.metrics.loss, moment.metrics.grad_norm, moment.metrics.rejected)
        )
        lap, now = self._stopwatch.lap(), moment.progress
        steps = now.step - self._last.step
        row: Row = {"step": now.step, "loss": float(loss), "grad_norm": float(grad_norm)}
        # The rate of the update that made this step: schedules count finished updates.
        row |= {name: np.asarray(rate(now.step - 1)).item() for name, rate in self._rates.items()}
        row |= {
            "tokens_seen": now.tokens_seen,
            "tokens_per_sec": (now.tokens_seen - self._last.tokens_seen) / lap.seconds,
            "step_time_s": lap.seconds / steps,
            "data_wait_share": lap.waiting / lap.seconds,
            "packing_utilization": self._window.tokens / (self._window.steps * self._row_tokens),
            "docs_seen": now.docs_seen,
            "docs_truncated": now.docs_truncated,
            "docs_skipped": now.docs_skipped,
            "docs_skipped_share": now.docs_skipped / max(1, now.docs_seen + now.docs_skipped),
            "docs_repaired": now.docs_repaired,
            "read_retries": self._read_retries(),
            "updates_rejected": int(rejected),
            "batch_hash": f"{moment.stats.hash:016x}",
            "epoch": moment.stats.epoch,
        }
        with self._stopwatch.paused("training"):  # the first time it measures the device
            row |= self._utilization(lap.seconds / steps)
        row |= self._constants | self._first_row | self._memory() | moment.row
        self._last, self._first_row, self._window = now, {}, LogWindow()
        return row


class Evaluate:
    """A full pass over the evaluation documents."""

    def __init__(
        self,
        data: EvaluationData,
        loss_step: Callable[[Any, Batch], tuple[jax.Array, jax.Array]],
        stopwatch: StepTimer,
        *,
        guard: Guard[Row],
        should_stop: Callable[[], bool],
    ):
        self._data, self._loss_step, self._stopwatch = data, loss_step, stopwatch
        self._guard, self._should_stop = guard, should_stop

    def __call__(self, moment: StepInfo) -> None:
        """Add `eval_loss`, `eval_perplexity` and `eval_bits_per_byte` to the row.

        Raises:
            Interrupted: a stop was requested; the row is as it was.
        """
        with idle(self._stopwatch, moment.state, "evaluating"):
            params = moment.state.params
            moment.row.update(self._guard(lambda: self.evaluate(params)))

    def evaluate(self, params: Any) -> Row:
        """Return the metrics of `params`: nats per target, its exponential, bits per byte."""
        parts = []
        for batch in self._data.batches():
            if self._should_stop():
                raise Interrupted
            self._stopwatch.alive()
            parts.append(self._loss_step(params, batch))
            jax.block_until_ready(parts[-2:-1])  # one ahead, so that a stop is heard soon
        losses, counts = zip(*jax.device_get(parts), strict=True)
        # Summed in float64 on the host: thousands of float32 sums would lose digits.
        nats, targets = math.fsum(map(float, losses)), sum(map(int, counts))
        loss = nats / targets
        return {
            "eval_loss": loss,
            "eval_perplexity": math.exp(min(loss, 700.0)),
            "eval_bits_per_byte": nats / math.log(2) / self._data.bytes,
            "eval_targets": targets,
        }


class SaveCheckpoint:
    """Saves the run, once its newest steps are known to be good."""

    def __init__(
        self,
        save: Callable[[StepInfo], None],
        stopwatch: StepTimer,
        *,
        check: Callable[[], None],
    ):
        self._save, self._stopwatch, self._check = save, stopwatch, check

    def __call__(self, moment: StepInfo) -> None:
        """Save the state of this step."""
        with idle(self._stopwatch, moment.state, "saving"):
            self._check()
            self._save(moment)


class GenerateSample:
    """Generates text from the next document of the sample stream."""

    def __init__(
        self,
        make: Callable[[Any, int], Row],
        report: Callable[[Row], None],
        stopwatch: StepTimer,
        *,
        guard: Guard[Row],
    ):
        self._make, self._report, self._stopwatch = make, report, stopwatch
        self._guard = guard

    def __call__(self, moment: StepInfo) -> None:
        """Generate with the parameters of this step, and report what came out.

        Raises:
            Interrupted: a stop was requested; nothing was reported.
        """
        with idle(self._stopwatch, moment.state, "sampling"):
            params, step = moment.state.params, moment.progress.step
            self._report(self._guard(lambda: self._make(params, step)))


class RecordBatch:
    """Records which documents each step was trained on."""

    def __init__(self, record: Callable[[int, int, BatchStats], None]):
        self._record = record

    def __call__(self, moment: StepInfo) -> None:
        """Record step, number of the batch and what the batch drew."""
        self._record(moment.progress.step, moment.progress.batches, moment.stats)


class DeviceCheck:
    """Notices a state that has left the device it is trained on."""

    def __call__(self, moment: StepInfo) -> None:
        """Check where the state's arrays are.

        Raises:
            ChompError: some are not on the default device's platform.
        """
        platform = jax.default_backend()
        found = {
            device.platform for leaf in jax.tree.leaves(moment.state) for device in leaf.devices()
        }
        if found != {platform}:
            raise ChompError(
                f"the training state is on {sorted(found)}, not only on {platform}: "
                "something moved it; please report this"
            )


class Profile:
    """Records a JAX profiler trace of a few steps, once the first ones are over."""

    FIRST, STEPS = 5, 5

    def __init__(self, folder: Path, start_step: int):
        self._folder, self._start_step = folder, start_step
        self._recording = False

    def __call__(self, moment: StepInfo) -> None:
        """Start or stop the trace when its step has come."""
        done = moment.progress.step - self._start_step
        if done == self.FIRST:
            jax.block_until_ready(moment.state.step)
            jax.profiler.start_trace(str(self._folder))
            self._recording = True
        elif done == self.FIRST + self.STEPS:
            jax.block_until_ready(moment.state.step)
            self.close()

    def close(self) -> None:
        """Write the trace, if the run ended while it was being recorded."""
        if self._recording:
            self._recording = False
            jax.profiler.stop_trace()
