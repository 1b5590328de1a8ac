"""Whether a config trains on this machine, for `chomp doctor`: its parts are made and tried."""

from collections.abc import Iterator
from contextlib import ExitStack

from chomp.commands.check import Check, ok, problem, warning
from chomp.config import Config, config_warnings
from chomp.data import missing_inputs
from chomp.errors import ChompError
from chomp.system.jax_runtime import start_jax
from chomp.trainer.components import build_components, open_tokenizer
from chomp.trainer.first_step import take_first_step


def config_checks(config: Config) -> Iterator[Check]:
    """Load the tokenizer, read the first batch, compile a step and take it; write nothing.

    Each finding comes when it is known. What rests on something that failed isn't tried.
    """
    for line in config_warnings(config):
        yield warning("config", line, "change it, if it isn't meant")
    if missing := missing_inputs(config.data):
        yield from (problem("data", line) for line in missing)
        return
    try:
        with ExitStack() as resources:
            yield from _try(config, resources)
    except ChompError as error:
        for line in str(error).split("\n"):
            yield problem("config", line)


def _try(config: Config, resources: ExitStack) -> Iterator[Check]:
    _, tokenizer = open_tokenizer(config, None)
    yield ok("tokenizer", f"{config.data.tokenizer.kind}, {tokenizer.vocab_size:,} tokens")
    start_jax(
        allow_cpu=True,
        compile_cache=config.runtime.compile_cache,
        compile_cache_gb=config.runtime.compile_cache_gb,
    )
    components = build_components(config, None)
    resources.callback(components.data.close)
    batch = next(components.data.train).batch
    shape = " x ".join(map(str, batch.input_ids.shape))
    sources = ", ".join(config.data.by_source()) or config.data.backend
    yield ok("data", f"{sources}, first batch {shape} (accum x batch x time)")
    step = take_first_step(components, batch)
    yield ok(
        "step",
        f"{components.program.parameters:,} parameters, compiled in {step.compiled.seconds:.1f} s, "
        f"ran in {step.seconds:.2f} s, loss {step.loss:.4f}",
    )
