import json
from typing import Any

import jax
import numpy as np

from chomp.trainer.callback import Callback, StepInfo
from chomp.trainer.trainer import Trainer

SIGTERM = 15


class Stop(Callback):
    """Requests a stop after a step, as a signal does."""

    def __init__(self, run: Any, step: int):
        super().__init__()
        self.run, self.step = run, step

    def __call__(self, info: StepInfo) -> None:
        if info.progress.step == self.step:
            self.run.signals.hear(SIGTERM)


class Mean(Callback):
    """Adds a value to the rows of even steps."""

    def __init__(self):
        super().__init__(every=2)
        self.closed = False

    def __call__(self, info: StepInfo) -> dict[str, float]:
        return {"targets_mean": info.progress.tokens_seen / info.progress.step}

    def close(self) -> None:
        self.closed = True


def params_of(run: Any, step: int) -> list[np.ndarray]:
    params = run.checkpointer.restore_params(step, run.components.program.shapes.params)
    return [np.asarray(leaf) for leaf in jax.tree.leaves(params)]


def test_a_trainer_trains_stops_and_goes_on_to_the_same_end(make_run: Any):
    run = make_run(train={"steps": 5})
    assert Trainer(run.components, run.context).fit() == 0
    whole, rows = params_of(run, 5), run.rows()
    for path in run.checkpointer.folder.iterdir():
        path.rename(path.with_name(f"kept-{path.name}"))

    stopped = Trainer(run.components, run.context, callbacks=[Stop(run, 3)])
    assert stopped.fit() == 128 + SIGTERM
    run.signals.stop = None
    saved = run.checkpointer.restore_run(3)
    assert saved.progress.step == 3
    assert Trainer(run.components, run.context, saved).fit() == 0
    for a, b in zip(params_of(run, 5), whole, strict=True):
        np.testing.assert_array_equal(a, b)
    again = run.rows()
    kept = ("step", "loss", "grad_norm", "batch_hash", "lr", "tokens_seen")
    assert [[row[key] for key in kept] for row in again] == [
        [row[key] for key in kept] for row in rows
    ]
    ledger = [json.loads(line) for line in run.folder.ledger.read_text().splitlines()]
    assert [line["step"] for line in ledger if "batch" in line] == [1, 2, 3, 4, 5]


def test_a_callback_of_ones_own_adds_to_the_rows(make_run: Any):
    run, mean = make_run(train={"steps": 4}), Mean()
    assert Trainer(run.components, run.context, callbacks=[mean]).fit() == 0
    rows = run.rows()
    assert ["targets_mean" in row for row in rows] == [False, True, False, True]
    assert rows[3]["targets_mean"] == rows[3]["tokens_seen"] / 4
    assert mean.closed
