"""Measure the gradient step against the library's, its matmul bound, its parts and its depth.

    python scripts/step_parts.py                    # 20M: four paths in turn
    python scripts/step_parts.py --model 66m        # the larger model
    python scripts/step_parts.py --parts            # with one part at a time left out
    python scripts/step_parts.py --depth            # 2, 4 and 8 layers, scanned and unrolled
    python scripts/step_parts.py --average          # ComplexEMA by length

Times are medians and minima over rounds in which each program runs once, in turn, so that other
load on the machine falls on all of them. CPU time is the process's, of all threads, and says more
than wall time where the machine is shared. Programs are compiled anew; no cache is used.
"""

import argparse
import contextlib
import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
from megalodon_jax import MegalodonConfig
from megalodon_jax.layers.norms import BatchedLayerNorm, RMSNorm

import chomp.models.megalodon.blocks as blocks
import chomp.models.megalodon.forward as forward
import chomp.models.megalodon.layers as layers
import chomp.models.megalodon.model as megalodon
from chomp.ops import Coefficients, complex_ema
from chomp.types import Batch

MODELS = {"20m": (4, 4096), "66m": (8, 32_768)}
BATCH, TIME, DOCUMENTS, DIM = 2, 1024, 4, 512
MATMUL, PRODUCTS = 2048, 12
Program = Callable[[], Any]


def model_config(layers: int, vocab: int) -> MegalodonConfig:
    return MegalodonConfig(
        vocab_size=vocab,
        model_dim=DIM,
        num_layers=layers,
        num_heads=2,
        z_dim=256,
        value_dim=1024,
        ffn_hidden_dim=1344,
        cema_ndim=16,
        chunk_size=512,
        norm_num_groups=32,
        swiglu=True,
    )


def rows(vocab: int) -> Batch:
    rng = np.random.default_rng(0)
    ids = rng.integers(3, vocab, (BATCH, TIME)).astype(np.int32)
    cuts = np.sort(rng.integers(1, TIME, (BATCH, DOCUMENTS - 1)))
    segments = [1 + np.searchsorted(cut, np.arange(TIME), side="right") for cut in cuts]
    segments = np.stack(segments).astype(np.int32)
    return Batch(ids, ids, segments, segments > 0)


def step_flops(config: MegalodonConfig, batch: Batch, isolated: bool) -> float:
    """Return the operations of the products that forward and backward pass can't do without."""
    d, z, v = config.model_dim, config.z_dim, config.value_dim
    layer = d * (z + 2 * v + d) + v * d + 3 * d * config.ffn_hidden_dim
    weights = config.num_layers * layer + d * config.vocab_size
    position = np.broadcast_to(np.arange(TIME), (BATCH, TIME))
    if isolated:
        starts = [np.searchsorted(row, row, side="left") for row in batch.segment_ids]
        position = position - np.stack(starts)
    seen = (position % config.chunk_size + 1).sum()
    return 6.0 * weights * BATCH * TIME + 6.0 * config.num_layers * (z + v) * seen


def compiled_step(
    config: MegalodonConfig, params: Any, batch: Batch, *, isolated: bool, fast: bool = True
) -> tuple[Program, float, float]:
    """Return the compiled gradient step, its temporaries in MB and its compile time."""
    model = megalodon.Megalodon(config, isolated, fast)
    grad = jax.jit(jax.value_and_grad(lambda p, b: model.loss(p, b, None)[0]))
    start = time.perf_counter()
    program = grad.lower(params, batch).compile()
    seconds = time.perf_counter() - start
    temporary = program.memory_analysis().temp_size_in_bytes / 1e6
    return lambda: program(params, batch), temporary, seconds


def measure(programs: dict[str, Program], rounds: int) -> dict[str, dict[str, float]]:
    """Run all programs in turn."""
    for program in programs.values():
        jax.block_until_ready(program())
    walls: dict[str, list[float]] = {name: [] for name in programs}
    cpus: dict[str, list[float]] = {name: [] for name in programs}
    for _ in range(rounds):
        for name, program in programs.items():
            wall, cpu = time.perf_counter(), time.process_time()
            jax.block_until_ready(program())
            walls[name].append(time.perf_counter() - wall)
            cpus[name].append(time.process_time() - cpu)
    return {
        name: {
            "median": statistics.median(walls[name]),
            "min": min(walls[name]),
            "cpu": statistics.median(cpus[name]),
        }
        for name in programs
    }


def report(
    programs: dict[str, tuple[Program, float, float]],
    rounds: int,
    flops: dict[str, float] | None = None,
) -> None:
    square = jnp.ones((MATMUL, MATMUL))
    multiply = jax.jit(lambda a: jnp.matmul(a, a, precision=jax.lax.Precision.HIGHEST))
    runs = {name: program for name, (program, _, _) in programs.items()}

    def products() -> Any:
        # Several in a row: a single one after another program is slower than the device can.
        for _ in range(PRODUCTS):
            result = jax.block_until_ready(multiply(square))
        return result

    times = measure({**runs, "matmul": products}, rounds)
    one = times.pop("matmul")
    rates = {kind: PRODUCTS * 2.0 * MATMUL**3 / one[kind] for kind in ("median", "min", "cpu")}
    print(f"one matmul of {MATMUL}: {rates['median'] / 1e9:.0f} GFLOP/s (median)")
    print("| program | median s | min s | CPU s | x bound | x bound (CPU) | MB | compile s |")
    print("|---|---|---|---|---|---|---|---|")
    for name, took in times.items():
        bound = [took[k] * rates[k] / flops[name] if flops else 0 for k in ("median", "cpu")]
        _, temporary, seconds = programs[name]
        print(
            f"| {name} | {took['median']:.3f} | {took['min']:.3f} | {took['cpu']:.3f} | "
            f"{bound[0]:.2f} | {bound[1]:.2f} | {temporary:.0f} | {seconds:.1f} |"
        )


@contextlib.contextmanager
def without(part: str) -> Iterator[None]:
    """Replace a part of the fast step by the identity, or the nearest to it."""

    def average(layer: Any, x: Any, **unused: Any) -> Any:
        return x, None

    def unchanged(layer: Any, x: Any) -> Any:
        return x

    def attention(q: Any, k: Any, v: Any, start: Any) -> Any:
        return v + (q.sum() + k.sum()) * 1e-20

    def loss(hidden: Any, weight: Any, *unused: Any) -> Any:
        return hidden.sum() + weight.sum()

    replaced = {
        "attention": [(blocks, "span_attention", attention)],
        "ComplexEMA": [(layers.FastComplexEMA, "__call__", average)],
        "norms": [
            (layers.FastTimestepNorm, "__call__", average),
            (BatchedLayerNorm, "__call__", unchanged),
            (RMSNorm, "__call__", unchanged),
        ],
        "gates": [
            (blocks, "silu_gate", lambda gate, x: gate + x),
            (blocks, "silu", lambda x: x),
        ],
        "loss": [(megalodon, "linear_cross_entropy", loss)],
    }
    with contextlib.ExitStack() as stack:
        for owner, name, new in replaced.get(part, []):
            stack.enter_context(mock.patch.object(owner, name, new))
        yield


def paths(config: MegalodonConfig, params: Any, batch: Batch, rounds: int) -> None:
    cases = {
        "library, packed": (True, False),
        "library, stream": (False, False),
        "isolated": (True, True),
        "stream": (False, True),
    }
    programs, flops = {}, {}
    for name, (isolated, fast) in cases.items():
        programs[name] = compiled_step(config, params, batch, isolated=isolated, fast=fast)
        flops[name] = step_flops(config, batch, isolated)
    report(programs, rounds, flops)


def parts(config: MegalodonConfig, params: Any, batch: Batch, rounds: int) -> None:
    programs = {}
    for part in ("nothing", "attention", "ComplexEMA", "norms", "gates", "loss"):
        with without(part):
            programs[f"without {part}"] = compiled_step(config, params, batch, isolated=True)
    report(programs, rounds)


def depths(vocab: int, batch: Batch, rounds: int) -> None:
    programs = {}
    for depth in (2, 4, 8):
        config = model_config(depth, vocab)
        params = jax.jit(megalodon.Megalodon(config, True).init)(jax.random.PRNGKey(0))
        for name, most in (("scanned", 1), ("unrolled", depth)):
            with mock.patch.object(forward, "LAYERS_AT_ONCE", most):
                program = compiled_step(config, params, batch, isolated=True)
            programs[f"{depth} layers {name}"] = program
    report(programs, rounds)


def averages(rounds: int) -> None:
    programs = {}
    for length in (1024, 4096, 16_384):
        keys = jax.random.split(jax.random.PRNGKey(0), 5)
        values = (jax.random.uniform(key, (DIM, 16), maxval=0.99) for key in keys)
        arguments = (jnp.ones((1, length, DIM)), Coefficients(*values))
        positions = (jnp.arange(length) % 250)[None]
        grad = jax.jit(jax.grad(lambda x, c, p: complex_ema(x, c, positions=p).sum(), (0, 1)))
        start = time.perf_counter()
        program = grad.lower(*arguments, positions).compile()
        seconds = time.perf_counter() - start
        temporary = program.memory_analysis().temp_size_in_bytes / 1e6
        call = lambda p=program, a=arguments, r=positions: p(*a, r)  # noqa: E731
        programs[f"ComplexEMA, {length} tokens"] = (call, temporary, seconds)
    report(programs, rounds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", choices=MODELS, default="20m")
    parser.add_argument("--rounds", type=int, default=5)
    for flag in ("--parts", "--depth", "--average"):
        parser.add_argument(flag, action="store_true")
    args = parser.parse_args()
    layers, vocab = MODELS[args.model]
    batch = rows(vocab)
    if args.average:
        return averages(args.rounds)
    if args.depth:
        return depths(vocab, batch, args.rounds)
    config = model_config(layers, vocab)
    params = jax.jit(megalodon.Megalodon(config, True).init)(jax.random.PRNGKey(0))
    (parts if args.parts else paths)(config, params, batch, args.rounds)


if __name__ == "__main__":
    main()
