"""ComplexEMA's time and memory per token as rows get longer.

    python scripts/length_cost.py

Forward and backward pass of one layer, the same number of tokens for every length, in turn.
"""

import argparse
import statistics
import time

import jax
import jax.numpy as jnp

from chomp.ops import Coefficients, complex_ema

TOKENS = 1 << 14
DOCUMENT = 256


def program(time_steps: int, dim: int, order: int):
    """Return the compiled gradient and its arguments for rows of this length."""
    keys = jax.random.split(jax.random.PRNGKey(0), 6)
    x = jax.random.normal(keys[0], (TOKENS // time_steps, time_steps, dim))
    p, magnitude, phase, real, imag = (jax.random.uniform(key, (dim, order)) for key in keys[1:])
    places = jnp.arange(time_steps) % DOCUMENT
    positions = jnp.broadcast_to(places, (TOKENS // time_steps, time_steps))

    def loss(x, coefficients, positions):
        return (complex_ema(x, coefficients, positions=positions) ** 2).sum()

    arguments = (x, Coefficients(p, 0.99 * magnitude, phase, real, imag), positions)
    return jax.jit(jax.grad(loss, argnums=(0, 1))).lower(*arguments).compile(), arguments


def main() -> None:
    parser = argparse.ArgumentParser(description="ComplexEMA's cost per token by length.")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--dim", type=int, default=512)
    parser.add_argument("--order", type=int, default=16)
    options = parser.parse_args()
    lengths = [1024, 2048, 4096, 8192, 16384]
    programs = {length: program(length, options.dim, options.order) for length in lengths}
    seconds: dict[int, list[float]] = {length: [] for length in lengths}
    for number in range(options.rounds + 1):
        for length, (compiled, arguments) in programs.items():
            start = time.perf_counter()
            jax.block_until_ready(compiled(*arguments))
            if number:
                seconds[length].append((time.perf_counter() - start) / TOKENS)
    base = statistics.median(seconds[lengths[0]])
    print("length  us/token  ratio  temporaries, bytes/token")
    for length in lengths:
        median = statistics.median(seconds[length])
        scratch = programs[length][0].memory_analysis().temp_size_in_bytes / TOKENS
        print(f"{length:6d}  {median * 1e6:8.3f}  {median / base:5.2f}  {scratch:12,.0f}")


if __name__ == "__main__":
    main()
