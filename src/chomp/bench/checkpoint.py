"""`chomp bench checkpoint`: what saving, verifying and restoring a configuration's state takes."""

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from chomp.bench.spread import Spread
from chomp.checkpoint.checkpointer import Checkpointer
from chomp.checkpoint.compatibility import package_versions
from chomp.config import Config
from chomp.errors import DiskError
from chomp.system.console import SILENT, Console
from chomp.system.jax_runtime import start_jax
from chomp.trainer.components import build_components
from chomp.types import Progress, TrainState

Values = dict[str, object]
Saved = tuple[dict[str, Any], dict[str, Any]]


def bench_checkpoint(
    config: Config,
    *,
    folder: Path,
    rounds: int,
    console: Console = SILENT,
) -> Values:
    """Save the initial state of `config` again and again, in the background and not, in turn.

    Args:
        config: as the user wrote it.
        folder: parent of the folder of the checkpoints, which is deleted at the end.
        rounds: how often.
        console: shows what is going on.

    Raises:
        DiskError: something couldn't be saved.
    """
    cache = config.runtime.compile_cache
    start_jax(allow_cpu=config.train.allow_cpu, compile_cache=cache)
    components = build_components(config, None)
    components.data.close()
    state = _full(components.program.shapes)
    meta = {
        "config": components.given.model_dump(mode="json"),
        "identity": components.identity,
        "versions": package_versions(),
    }
    rest: Saved = (components.data.get_state(), meta)
    with tempfile.TemporaryDirectory(dir=folder, prefix="bench-checkpoint-") as name:
        ways = {
            asynchronous: Checkpointer(
                Path(name) / str(asynchronous), max_to_keep=1, async_save=asynchronous
            )
            for asynchronous in (True, False)
        }
        # The first save of each is slower, and not what a run sees after its first minutes.
        blocked: dict[bool, list[float]] = {True: [], False: []}
        written, verified, restored = [], [], []
        for step in range(rounds + 1):
            console.message(f"round {step} of {rounds}" if step else "warm-up")
            for asynchronous, checkpoints in ways.items():
                first, second = _save(checkpoints, step, state, rest)
                if step:
                    blocked[asynchronous].append(first)
                    written += [second] if asynchronous else []
            if step:
                verified.append(_seconds(lambda: ways[True].problem(step)))  # noqa: B023
                restored.append(_seconds(lambda: _restore(ways[True], step, components)))  # noqa: B023
        manifest = ways[True].complete(rounds)
        assert manifest is not None
        for checkpoints in ways.values():
            checkpoints.close()
    return {
        "parameters": components.program.parameters,
        "checkpoint_bytes": manifest.bytes,
        "async_blocked_seconds": Spread.of(blocked[True]),
        "async_written_seconds": Spread.of(written),
        "sync_blocked_seconds": Spread.of(blocked[False]),
        "verify_seconds": Spread.of(verified),
        "restore_seconds": Spread.of(restored),
    }


def _full(shapes: TrainState) -> TrainState:
    """Return a state of noise: an optimizer's fresh zeros would be written in no time."""
    random = np.random.default_rng(0)

    def noise(leaf: jax.ShapeDtypeStruct) -> jax.Array:
        if not jnp.issubdtype(leaf.dtype, jnp.floating):  # counters and keys, a few numbers
            return jax.device_put(np.ones(leaf.shape, leaf.dtype))
        return jax.device_put(random.standard_normal(leaf.shape, np.float32).astype(leaf.dtype))

    return jax.block_until_ready(jax.tree.map(noise, shapes))


def _save(
    checkpoints: Checkpointer, step: int, state: TrainState, rest: Saved
) -> tuple[float, float]:
    """Return the seconds until the save gave control back, and until all was on the disk."""
    start = time.perf_counter()
    checkpoints.save(state, Progress(step), *rest)
    blocked = time.perf_counter() - start
    checkpoints.wait()
    if problems := checkpoints.problems():
        raise DiskError("\n".join(problems))
    return blocked, time.perf_counter() - start


def _restore(checkpoints: Checkpointer, step: int, components: Any) -> None:
    checkpoints.restore_run(step)
    jax.block_until_ready(checkpoints.restore_state(step, components.program.shapes))


def _seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start
