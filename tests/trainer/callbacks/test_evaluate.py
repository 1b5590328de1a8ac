import math
from typing import Any

import numpy as np
import pytest

from chomp.errors import Interrupted
from chomp.trainer.callbacks.evaluate import Evaluate
from chomp.trainer.control import LocalControl
from chomp.trainer.step_timer import StepTimer
from chomp.trainer.stop_and_save import StopAndSaveRequests

SIGTERM = 15


@pytest.mark.parametrize("mode", ["sequential", "bin"])
def test_evaluation_is_the_loss_of_each_document_by_itself(make_run: Any, mode: str):
    """The bigram model's loss doesn't depend on rows: a plain sum over texts is the reference."""
    data = {"packing_mode": mode, "packing_buffer_docs": 8, "max_eval_samples": 7}
    run = make_run(data=data, train={"eval_every": 1})
    program, data = run.components.program, run.components.data
    params = program.init().params
    control = LocalControl(data.train, StopAndSaveRequests(run.signals))
    found = Evaluate(program, data.evaluation, control, StepTimer(), 1).evaluate(params)
    head, embed = np.asarray(params.lm_head.weight), np.asarray(params.embed.weight)
    nats, targets, size = 0.0, 0, 0
    documents = data.evaluation.sources[""]._load()
    assert len(documents) == 7
    for document in documents:
        ids = document.tokens
        logits = embed[ids[:-1]].astype(np.float64) @ head.T
        logits -= logits.max(-1, keepdims=True)
        logprobs = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
        nats -= logprobs[np.arange(len(ids) - 1), ids[1:]].sum()
        targets += len(ids) - 1
        size += document.bytes - 1  # a byte a token; the first one isn't scored, EOS has none
    assert found["eval_targets"] == targets
    assert found["eval_loss"] == pytest.approx(nats / targets, rel=1e-5)
    assert found["eval_perplexity"] == pytest.approx(math.exp(nats / targets), rel=1e-4)
    assert found["eval_bits_per_byte"] == pytest.approx(nats / math.log(2) / size, rel=1e-5)


def test_a_stop_interrupts_it(make_run: Any):
    run = make_run(train={"eval_every": 1})
    data, program = run.components.data, run.components.program
    control = LocalControl(data.train, StopAndSaveRequests(run.signals))
    evaluate = Evaluate(program, data.evaluation, control, StepTimer(), 1)
    run.signals.hear(SIGTERM)
    with pytest.raises(Interrupted):
        evaluate.evaluate(program.init().params)
