"""Watching the loss: steps that are not finite, and sudden jumps.

Whether an update is applied is decided in the step, on the device. What was decided, and every
step's loss, is read here: in one go where a row or a checkpoint is due, so that no step waits.
"""

import collections
import statistics
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import jax

from chomp.config.train import DivergencePolicy, SpikePolicy, TrainConfig
from chomp.errors import DivergedError
from chomp.types import BatchStats, Progress, StepMetrics

MIN_HISTORY = 16
"""Losses that must be known before one can be called unusual."""
LEAST_SPREAD = 1e-3
"""Smallest spread of losses assumed, as a share of their median: repeated texts have none."""
MOST_UNREAD = 1000
"""Steps that are collected at most before they are judged."""
MAD_TO_SIGMA = 1.4826
"""Standard deviation by median absolute deviation, of a normal distribution."""


class Incident(NamedTuple):
    """A step that went wrong, and its batch."""

    step: int
    batch: int
    """Number of the batch, counted from 1 over all that were drawn."""
    batch_hash: str
    what: str


class Rewind(Exception):
    """The run is to go back to before the first incident, and leave out the batches of all."""

    def __init__(self, incidents: Sequence[Incident]):
        self.incidents = incidents
        super().__init__("; ".join(incident.what for incident in incidents))


class LossPolicy(NamedTuple):
    """What is done about incidents."""

    to_divergence: DivergencePolicy
    """About loss or gradients that are not finite."""
    to_spikes: SpikePolicy
    """About a loss far above those before it."""
    threshold: float
    """How far: robust standard deviations above the median."""
    window: int
    """Losses that median and deviation are taken of."""
    limit: int
    """Rejected updates in a row that end a run which skips them."""

    @classmethod
    def of(cls, train: TrainConfig) -> "LossPolicy":
        """Return what the `train` section asks for."""
        return cls(
            to_divergence=train.on_divergence,
            to_spikes=train.on_spike,
            threshold=train.spike_threshold,
            window=train.spike_window,
            limit=train.divergence_limit,
        )


class _Seen(NamedTuple):
    step: int
    batch: int
    batch_hash: str
    metrics: StepMetrics


class LossMonitor:
    """Collects what each step reports, and judges it when asked.

    Args:
        policy: what to do.
        losses: of the steps before, as the property gave them.
        rejected: updates rejected before.
        report: takes an incident that the run survives.
        run: the run folder as a command line has it, for messages.
        in_a_row: how many of the last steps before had their updates rejected.
    """

    def __init__(
        self,
        policy: LossPolicy,
        losses: Iterable[float],
        rejected: int,
        report: Callable[[Incident], None],
        *,
        run: str,
        in_a_row: int = 0,
    ):
        self._run = run
        self._policy, self._report = policy, report
        self._losses = collections.deque(losses, maxlen=policy.window)
        self._rejected, self._in_a_row = rejected, in_a_row
        self._unread: list[_Seen] = []

    @property
    def losses(self) -> list[float]:
        """The losses that the next one is compared with."""
        return list(self._losses)

    @property
    def in_a_row(self) -> int:
        """How many of the last steps had their updates rejected."""
        return self._in_a_row

    def collect(self, progress: Progress, stats: BatchStats, metrics: StepMetrics) -> None:
        """Keep what the step reports, unread but for once in many steps.

        Raises:
            DivergedError, Rewind: as `check` does.
        """
        self._unread.append(_Seen(progress.step, progress.batches, f"{stats.hash:016x}", metrics))
        if len(self._unread) >= MOST_UNREAD:
            self.check()

    def check(self) -> None:
        """Judge the steps since the last check.

        Raises:
            DivergedError: the run is to end.
            Rewind: it is to go back.
        """
        seen, self._unread = self._unread, []
        read = jax.device_get([(one.metrics.loss, one.metrics.rejected) for one in seen])
        diverged, jumped = [], []
        for one, (loss, rejected) in zip(seen, read, strict=True):
            diverged.append(self._divergence(one, float(loss), int(rejected)))
            jumped.append(None if diverged[-1] else self._spike(one, float(loss)))
        if any(diverged):
            self._react_to_divergence(diverged)
        if any(jumped):
            self._react_to_spikes(jumped)

    def _divergence(self, one: _Seen, loss: float, rejected: int) -> Incident | None:
        known, self._rejected = self._rejected, rejected
        if rejected == known:
            self._in_a_row = 0
            return None
        self._in_a_row += 1
        norm = float(one.metrics.grad_norm)
        return Incident(*one[:3], f"loss {loss}, gradient norm {norm} at step {one.step}")

    def _spike(self, one: _Seen, loss: float) -> Incident | None:
        before = sorted(self._losses)
        self._losses.append(loss)
        if self._policy.to_spikes == "ignore" or len(before) < MIN_HISTORY:
            return None
        median = statistics.median(before)
        spread = MAD_TO_SIGMA * statistics.median(abs(value - median) for value in before)
        distance = (loss - median) / max(spread, LEAST_SPREAD * abs(median), 1e-12)
        if distance <= self._policy.threshold:
            return None
        what = (
            f"loss {loss:.4f} at step {one.step} is {distance:.1f} robust standard deviations "
            f"above the median of the {len(before)} steps before, {median:.4f}"
        )
        return Incident(*one[:3], what)

    def _react_to_divergence(self, found: list[Incident | None]) -> None:
        incidents = [incident for incident in found if incident]
        if self._policy.to_divergence == "rewind":
            raise Rewind(_offending(found))
        if self._policy.to_divergence == "stop":
            raise DivergedError(_explain(incidents, self._run))
        for incident in incidents:
            self._report(incident)
        if self._in_a_row >= self._policy.limit:
            raise DivergedError(
                f"{_explain(incidents, self._run)}\n  {self._in_a_row} in a row: "
                f"train.divergence_limit is {self._policy.limit}"
            )

    def _react_to_spikes(self, found: list[Incident | None]) -> None:
        if self._policy.to_spikes == "rewind":
            raise Rewind(_offending(found))
        for before, incident in zip([None, *found], found, strict=False):
            if incident and not before:
                self._report(incident)


def _offending(found: Sequence[Incident | None]) -> list[Incident]:
    """Return the incidents whose batches are to blame.

    Where good steps follow, the batches were bad. Where none does, the parameters may be what has
    gone wrong, and only the first of these batches is known to have led there.
    """
    places = [place for place, incident in enumerate(found) if incident]
    last_good = max((place for place, incident in enumerate(found) if not incident), default=-1)
    tail = [place for place in places if place > last_good]
    return [
        incident
        for place, incident in enumerate(found)
        if incident and (place < last_good or place == tail[0])
    ]


def _explain(incidents: Sequence[Incident], run: str) -> str:
    first, more = incidents[0], len(incidents) - 1
    return (
        f"loss or gradients were not finite: {first.what} (batch {first.batch}, fingerprint "
        f"{first.batch_hash}){f', and in {more} more step(s) after it' if more else ''}; these "
        f"updates were not applied. `chomp trace {run} --step "
        f"{first.step}` names the batch's documents. Resume from the last checkpoint with a lower "
        "optim.lr (--allow-change optim.lr), or with train.on_divergence: skip or rewind"
    )
