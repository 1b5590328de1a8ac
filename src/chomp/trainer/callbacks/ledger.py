"""The ledger, written during training."""

from chomp.run.ledger import Ledger
from chomp.trainer.callback import Callback, StepInfo


class RecordBatch(Callback):
    """Records which documents each step was trained on."""

    name = "record"
    at_end = True

    def __init__(self, ledger: Ledger, every: int):
        super().__init__(every)
        self._ledger = ledger

    def __call__(self, info: StepInfo) -> None:
        """Record step, number of the batch and what the batch drew."""
        self._ledger.record(info.progress.step, info.progress.batches, info.stats)
