"""What eight GPUs send each other, and what they compute meanwhile: read in their program.

XLA compiles for GPUs that aren't there, given what they are like; only its plugin has to be.
"""

import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from scaling_tables import least_bytes

from chomp.config import Config
from chomp.hlo.accelerators import accelerator
from chomp.hlo.collectives import Collective, collectives
from chomp.hlo.target import devices_of, has_gpu_compiler
from chomp.system.jax_runtime import gpu_compiler_options
from chomp.trainer.program import TrainProgram, build_program, lower_step

DEVICES, ACCUM, LAYERS = 8, 3, 8
COLLECTIVES = {("all-gather", "u16"), ("reduce-scatter", "f32"), ("all-reduce", "f32")}
"""Those of more than counters: bits of bfloat16, sums in float32."""
MODEL = {
    "vocab_size": 512,
    "model_dim": 128,
    "num_layers": LAYERS,
    "z_dim": 64,
    "value_dim": 256,
    "ffn_hidden_dim": 256,
    "chunk_size": 64,
    "compute_dtype": "bfloat16",
}
# Collectives of a small model are put together until none is left to compute meanwhile; those of
# a large one aren't.
APART = {"xla_gpu_all_gather_combine_threshold_bytes": 1 << 14}
PRODUCT = re.compile(r" dot\(|__cublas\$|__triton[a-z_]*gemm")
CALLED = re.compile(r"(?:calls|body|to_apply)=%?([\w.-]+)")

Lines = dict[str, list[str]]
"""Of a program by computation, in the order in which they start."""

pytestmark = [
    pytest.mark.gpu_program,
    pytest.mark.skipif(not has_gpu_compiler(), reason="the extra `plan` isn't installed"),
]


@pytest.fixture(scope="module")
def gpus() -> list[Any]:
    """Eight H100s of one host, for programs alone."""
    return list(devices_of(accelerator("h100"), DEVICES))


@pytest.fixture(scope="module")
def compiled(
    gpus: list[Any], make_config: Callable[..., Config]
) -> Callable[..., tuple[Config, TrainProgram, str]]:
    """Compile a step for the eight: config, learner and the program's text."""

    def build(
        optimizer: str, options: Any = None, **parallel: Any
    ) -> tuple[Config, TrainProgram, str]:
        config = make_config(
            "megalodon",
            model=MODEL | ({"num_layers": 2} if parallel["gather"] == "step" else {}),
            train={"batch_size": DEVICES, "grad_accum": ACCUM, "seq_len": 128},
            optim={"name": optimizer},
            parallel={"data": 1, "fsdp": DEVICES, **parallel},
        )
        train_program = build_program(config, "gpu", gpus)
        program = lower_step(train_program, config.train).compile(
            compiler_options=gpu_compiler_options() | (options or {})
        )
        text = program.as_text()
        assert text is not None and "is_scheduled=true" in text
        return config, train_program, text

    return build


def bytes_of(found: list[Collective]) -> int:
    """Bytes that a device sends in a step."""
    return sum(one.times * one.sent for one in found)


def computations(text: str) -> Lines:
    bodies: Lines = {}
    for line in text.splitlines():
        if header := re.match(r"(?:ENTRY )?%?([\w.-]+) \(.*\{$", line):
            lines = bodies[header[1]] = []
        elif line.startswith("  ") and " = " in line:
            lines.append(line)
    return bodies


def products(bodies: Lines, line: str) -> int:
    """Matrix products of an instruction, those that it calls included."""
    called = [name for name in CALLED.findall(line) if name in bodies]
    inner = (products(bodies, each) for name in called for each in bodies[name])
    return len(PRODUCT.findall(line)) + sum(inner)


def behind_products(bodies: Lines, name: str, kind: str) -> Iterator[int]:
    """Yield for each collective of a computation the products from its start to its end."""
    started: dict[str, int] = {}
    for place, line in enumerate(bodies[name]):
        if found := re.match(rf"\s+(?:ROOT )?%?([\w.-]+) = .* {kind}-start\(", line):
            started[found[1]] = place
        elif found := re.search(rf" {kind}-done\(%?([\w.-]+)\)", line):
            meanwhile = bodies[name][started[found[1]] + 1 : place]
            yield sum(products(bodies, each) for each in meanwhile)


def layer_loops(bodies: Lines, kind: str) -> list[str]:
    """Bodies of loops within the loop over microbatches that have such collectives."""
    loops = {
        name: [body for line in lines for body in re.findall(r" while\(.*body=%?([\w.-]+)", line)]
        for name, lines in bodies.items()
    }
    inner = {body for outer in loops.values() for name in outer for body in loops[name]}
    return [name for name in sorted(inner) if f" {kind}-start(" in "\n".join(bodies[name])]


def test_a_step_sends_the_least(compiled: Callable[..., Any]):
    """Parameters in bfloat16, gradients in float32, each once."""
    config, train_program, text = compiled("adamw", gather="step")
    found = collectives(text, DEVICES)
    large = {(one.kind, one.dtype) for one in found if one.payload > 1000}
    assert large <= COLLECTIVES
    assert {kind for kind, _ in large} >= {"all-gather", "reduce-scatter"}
    assert not [one for one in found if one.trips]
    assert bytes_of(found) <= 1.05 * least_bytes(config, train_program)


@pytest.mark.slow
def test_gradients_in_bfloat16_send_half(compiled: Callable[..., Any]):
    config, train_program, text = compiled("adamw", gather="step", reduce_dtype="bfloat16")
    assert bytes_of(collectives(text, DEVICES)) <= 1.05 * least_bytes(config, train_program)


@pytest.fixture(scope="module")
def by_layer(compiled: Callable[..., Any]) -> tuple[Config, TrainProgram, str]:
    return compiled("muon", APART, gather="layer")


@pytest.mark.slow
def test_by_layer_each_microbatch_sends_the_least(by_layer: tuple[Config, TrainProgram, str]):
    """Muon's exchange of matrices included."""
    config, train_program, text = by_layer
    found = collectives(text, DEVICES)
    assert {len(one.trips) for one in found if one.kind == "all-gather"} == {1, 2}
    assert bytes_of(found) <= 1.05 * least_bytes(config, train_program)


@pytest.mark.slow
def test_parameters_are_fetched_while_products_are_made(by_layer: tuple[Config, TrainProgram, str]):
    """In the loops over layers, forward and backward."""
    bodies = computations(by_layer[2])
    loops = layer_loops(bodies, "all-gather")
    assert len(loops) == 2
    for name in loops:
        behind = list(behind_products(bodies, name, "all-gather"))
        print(name, behind)
        # Not those of the layer's first products: there is nothing to compute before them.
        assert sum(map(bool, behind)) >= len(behind) / 3
