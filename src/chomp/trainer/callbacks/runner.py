"""Calls the callbacks of a run in their order, and keeps the books of what has been done."""

from collections.abc import Collection, Sequence

from chomp.errors import DataError, Interrupted
from chomp.tracking.tracker import Row
from chomp.trainer.callback import Callback, PendingWork, StepInfo
from chomp.trainer.callbacks.metrics import LogMetrics


class CallbackRunner:
    """Runs callbacks in their order: those that add to a step's row, the log, those that follow.

    Once a stop has interrupted a callback, or one lacks data, those after it are only noted as
    pending, but for the ones that belong to a stop.

    Args:
        before: whose values the step's row of metrics gets.
        log: writes the row.
        after: the others.
        steps: the last step of the run.
        pending: work of the newest step that is still to be done.
    """

    def __init__(
        self,
        before: Sequence[Callback],
        log: LogMetrics,
        after: Sequence[Callback],
        *,
        steps: int,
        pending: PendingWork,
    ):
        self._before, self._log, self._after = before, log, after
        self._steps, self.pending = steps, pending
        self._done: set[Callback] = set()

    def after_step(self, info: StepInfo) -> None:
        """Do what follows a step."""
        step = info.progress.step
        self._done.clear()
        self.pending.callbacks = []
        ends = step == self._steps
        due = {c for c in self._all if c.is_due(step) or (ends and c.at_end)}
        self._call(self._before, info, due)
        self._log.after_step(info)
        self._call(self._after, info, due)

    def at_data_end(self, info: StepInfo) -> None:
        """Do what the end of the data asks for and the last step did not call for."""
        if self.pending.callbacks:
            self.at_stop(info)
            return
        due = {c for c in self._all if c.at_end}
        self._call(self._before, info, due)
        self._log.at_end(info)
        self._call(self._after, info, due)

    def at_stop(self, info: StepInfo) -> None:
        """Do what a stop asks for and the last step did not call for."""
        due = {c for c in self._all if c.at_stop}
        self._call(self._before, info, due)
        self._call(self._after, info, due)

    def make_up(self, info: StepInfo, names: Collection[str], row: Row) -> None:
        """Do what a stop kept from a step that was saved.

        Args:
            info: the step.
            names: of the callbacks.
            row: the step's values that weren't written.
        """
        self.pending.row = dict(row)
        due = {c for c in self._all if c.name in names}
        self._call(self._before, info, due)
        if self.pending.row:
            self._log.at_end(info)
        self._call(self._after, info, due)

    def __enter__(self) -> "CallbackRunner":
        return self

    def __exit__(self, *_: object) -> None:
        """Close all callbacks."""
        for callback in self._all:
            callback.close()

    @property
    def _all(self) -> list[Callback]:
        return [*self._before, *self._after]

    def _call(self, some: Sequence[Callback], info: StepInfo, due: Collection[Callback]) -> None:
        pending = self.pending
        for callback in some:
            if callback not in due or callback in self._done:
                continue
            if pending.callbacks and not callback.at_stop:
                pending.callbacks.append(callback.name)
                continue
            try:
                pending.row |= callback(info) or {}
            except Interrupted:
                pending.callbacks.append(callback.name)
            except DataError as failure:
                pending.callbacks.append(callback.name)
                pending.failure = failure
            else:
                self._done.add(callback)
