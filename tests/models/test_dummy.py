import jax
import numpy as np
import pytest

from chomp.models.dummy import Dummy
from chomp.types import IGNORE_LABEL, Batch


def test_the_loss_is_that_of_a_bigram_model():
    model = Dummy(vocab_size=11, dim=4)
    params = model.init(jax.random.PRNGKey(0))
    rng = np.random.default_rng(0)
    ids = rng.integers(0, 11, (3, 9)).astype(np.int32)
    labels = np.where(rng.random((3, 9)) < 0.5, ids, IGNORE_LABEL).astype(np.int32)
    loss, targets = model.loss(params, Batch(ids, labels, ids, ids >= 0), None)
    table = np.asarray(params.embed.weight, np.float64) @ np.asarray(params.lm_head.weight).T
    table -= np.log(np.exp(table).sum(-1, keepdims=True))
    expected = [
        -table[ids[row, i - 1], labels[row, i]]
        for row in range(3)
        for i in range(1, 9)
        if labels[row, i] != IGNORE_LABEL
    ]
    assert int(targets) == len(expected) > 5
    assert float(loss) == pytest.approx(sum(expected), rel=1e-5)
