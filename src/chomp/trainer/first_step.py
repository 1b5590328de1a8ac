"""The first step of a run that is only tried."""

import time
from typing import NamedTuple

from chomp.trainer.components import Components
from chomp.trainer.program import CompiledStep, compile_step
from chomp.types import Batch


class FirstStep(NamedTuple):
    """A step that was compiled and taken."""

    compiled: CompiledStep
    seconds: float
    loss: float


def take_first_step(components: Components, batch: Batch) -> FirstStep:
    """Compile the step, and take it with a batch that is on the device."""
    state = components.program.init(components.config.train.seed)
    compiled = compile_step(components.program, components.config.train)
    start = time.perf_counter()
    _, metrics = compiled.step(state, batch)
    loss = float(metrics.loss)
    return FirstStep(compiled, time.perf_counter() - start, loss)
