"""`chomp bench step`: the compiled training step, alone or against another way to compute it."""

import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import jax

from chomp.bench.spread import Spread
from chomp.config import Config
from chomp.system.console import SILENT, Console
from chomp.system.device_flops import matmul_rate
from chomp.system.jax_runtime import start_jax
from chomp.trainer.components import Components, build_components
from chomp.trainer.program import build_program, compile_step
from chomp.types import Batch

Against = Literal["library", "stream"]
Values = dict[str, object]

CHANGES: dict[Against, tuple[str, dict[str, bool]]] = {
    "library": ("model", {"fast_ops": False}),
    "stream": ("data", {"isolate_documents": False}),
}
"""The section and values by which the other program differs."""


class Contender:
    """One compiled step with a training state of its own."""

    def __init__(self, components: Components, batches: Sequence[Batch]):
        self.compiled = compile_step(components.program, components.config.train)
        self._batches = batches
        self._state = components.program.init(components.config.train.seed)
        # The first call also loads the program; its loss is comparable between contenders.
        self._state, metrics = self.compiled.step(self._state, batches[0])
        self.loss, self.grad_norm = float(metrics.loss), float(metrics.grad_norm)
        self.seconds: list[float] = []

    def run(self) -> None:
        """Take one step on each batch, and note the time of a step."""
        start = time.perf_counter()
        for batch in self._batches:
            self._state, _ = self.compiled.step(self._state, batch)
        jax.block_until_ready(self._state.step)
        self.seconds.append((time.perf_counter() - start) / len(self._batches))

    def values(self) -> Values:
        """Return what was found out."""
        return {
            "step_seconds": Spread.of(self.seconds),
            "temp_bytes": self.compiled.temp_bytes,
            "compile_seconds": self.compiled.seconds,
            "loss": self.loss,
            "grad_norm": self.grad_norm,
        }


def bench_step(
    config: Config,
    *,
    against: Against | None,
    rounds: int,
    steps: int,
    console: Console = SILENT,
) -> Values:
    """Measure the training step of `config`, in turn with another and with one matrix product.

    Every program is compiled anew, without the compile cache.

    Args:
        config: as the user wrote it.
        against: the other program; its values have this name in front.
        rounds: how often each is measured.
        steps: taken in a row in each round, each on a batch of its own.
        console: shows what is going on.
    """
    device = start_jax(allow_cpu=config.train.allow_cpu, compile_cache=None)
    components = build_components(config, None)
    try:
        batches = [next(components.data.train).batch for _ in range(steps)]
    finally:
        components.data.close()
    console.message(f"compiling the step of {components.program.parameters:,} parameters")
    contenders = {"": Contender(components, batches)}
    if against:
        console.message(f"compiling the step to compare it with: {against}")
        contenders[f"{against}_"] = Contender(_changed(components, against), batches)
    measure = matmul_rate(components.program.model.product_dtype)
    rates = []
    for number in range(rounds):
        console.message(f"round {number + 1} of {rounds}")
        # Alternately first, so that a machine that gets slower or faster favours none.
        order = list(contenders.values())[:: -1 if number % 2 else 1]
        for contender in order:
            contender.run()
        rates.append(measure())
    values: Values = {"device": device, "parameters": components.program.parameters}
    for prefix, contender in contenders.items():
        values |= {prefix + name: value for name, value in contender.values().items()}
    if against:
        values["speedup"] = _median(values, f"{against}_") / _median(values, "")
    return values | _rates(components, _median(values, ""), Spread.of(rates))


def changed_config(config: Config, against: Against) -> Config:
    """Return the configuration of the other program."""
    section, changes = CHANGES[against]
    values = getattr(config, section).model_copy(update=changes)
    return config.model_copy(update={section: values})


def _changed(components: Components, against: Against) -> Components:
    config = changed_config(components.config, against)
    return replace(components, config=config, program=build_program(config))


def _median(values: Values, prefix: str) -> float:
    seconds = values[f"{prefix}step_seconds"]
    assert isinstance(seconds, Spread)
    return seconds.median


def _rates(components: Components, seconds: float, matmul: Spread) -> Values:
    train = components.config.train
    positions = train.grad_accum * train.batch_size * train.seq_len
    per_token = components.program.model.flops_per_token
    achieved = per_token * positions / seconds
    return {
        "tokens_per_step": positions,
        "tokens_per_second": positions / seconds,
        "model_flops_per_token": per_token,
        "achieved_flops": achieved,
        "matmul_flops": matmul,
        "fraction_of_matmul_bound": achieved / matmul.median,
    }
