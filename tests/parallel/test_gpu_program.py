"""What eight GPUs send each other, and what they compute meanwhile: read in their program.

XLA compiles for GPUs that aren't there, given what they are like; only its plugin has to be.
"""

import importlib.util
import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from jax.experimental import topologies
from scaling_tables import least_bytes

from chomp.config import Config
from chomp.hlo.collectives import Collective, collectives
from chomp.parts import Learner, build_learner
from chomp.programs import lower_step
from chomp.runtime import gpu_compiler_options

DEVICES, ACCUM, LAYERS = 8, 3, 8
NEEDED = ("jax_plugins.xla_cuda13", "nvidia.cu13")
"""The plugin; its assembler, and its library of device code."""
H100 = """
gpu_device_info {
  threads_per_block_limit: 1024
  threads_per_warp: 32
  shared_memory_per_block: 49152
  shared_memory_per_core: 233472
  shared_memory_per_block_optin: 232448
  threads_per_core_limit: 2048
  core_count: 132
  fpus_per_core: 128
  block_dim_limit_x: 2147483647
  block_dim_limit_y: 65535
  block_dim_limit_z: 65535
  thread_dim_limit_x: 1024
  thread_dim_limit_y: 1024
  thread_dim_limit_z: 64
  registers_per_core_limit: 65536
  registers_per_block_limit: 65536
  memory_bandwidth: 3352320000000
  l2_cache_size: 52428800
  clock_rate_ghz: 1.98
  device_memory_size: 84942979072
  cuda_compute_capability { major: 9 minor: 0 feature_extension: ACCELERATED_FEATURES }
  device_vendor: "NVIDIA Corporation"
  device_address_bits: 64
  name: "NVIDIA H100 80GB HBM3"
  driver_version: "13.0.0"
  runtime_version: "13.0.0"
  compile_time_toolkit_version: "13.0.0"
  dnn_version: "9.10.0"
}
platform_name: "CUDA"
dnn_version_info { major: 9 minor: 10 patch: 0 }
runtime_version { major: 13 minor: 0 patch: 0 }
device_description_str: "NVIDIA H100 80GB HBM3"
"""


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

pytestmark = pytest.mark.gpu_program


def is_there(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # nor is the package that it would be in
        return False


@pytest.fixture(scope="module")
def gpus() -> list[Any]:
    """Eight H100s of one host, for programs alone."""
    if not all(map(is_there, NEEDED)):
        pytest.skip("needs jax-cuda13-pjrt, nvidia-cuda-nvcc and nvidia-nvvm")
    topology = topologies.get_topology_desc(
        "", platform="cuda", target_config=H100, topology=f"1x1x{DEVICES}"
    )
    return list(topology.devices)


@pytest.fixture(scope="module")
def compiled(
    gpus: list[Any], make_config: Callable[..., Config]
) -> Callable[..., tuple[Config, Learner, str]]:
    """Compile a step for the eight: config, learner and the program's text."""

    def build(optimizer: str, options: Any = None, **parallel: Any) -> tuple[Config, Learner, str]:
        config = make_config(
            "megalodon",
            model=MODEL | ({"num_layers": 2} if parallel["gather"] == "step" else {}),
            train={"batch_size": DEVICES, "grad_accum": ACCUM, "seq_len": 128},
            optim={"name": optimizer},
            parallel={"data": 1, "fsdp": DEVICES, **parallel},
        )
        learner = build_learner(config, "gpu", gpus)
        program = lower_step(learner, config.train).compile(
            compiler_options=gpu_compiler_options() | (options or {})
        )
        text = program.as_text()
        assert text is not None and "is_scheduled=true" in text
        return config, learner, text

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
    config, learner, text = compiled("adamw", gather="step")
    found = collectives(text, DEVICES)
    assert not [one for one in found if one.trips]
    assert bytes_of(found) <= 1.05 * least_bytes(config, learner)


@pytest.mark.slow
def test_gradients_in_bfloat16_send_half(compiled: Callable[..., Any]):
    config, learner, text = compiled("adamw", gather="step", reduce_dtype="bfloat16")
    assert bytes_of(collectives(text, DEVICES)) <= 1.05 * least_bytes(config, learner)


@pytest.fixture(scope="module")
def by_layer(compiled: Callable[..., Any]) -> tuple[Config, Learner, str]:
    return compiled("muon", APART, gather="layer")


@pytest.mark.slow
def test_by_layer_each_microbatch_sends_the_least(by_layer: tuple[Config, Learner, str]):
    """Muon's exchange of matrices included."""
    config, learner, text = by_layer
    found = collectives(text, DEVICES)
    assert {len(one.trips) for one in found if one.kind == "all-gather"} == {1, 2}
    assert bytes_of(found) <= 1.05 * least_bytes(config, learner)


@pytest.mark.slow
def test_parameters_are_fetched_while_products_are_made(by_layer: tuple[Config, Learner, str]):
    """In the loops over layers, forward and backward."""
    bodies = computations(by_layer[2])
    loops = layer_loops(bodies, "all-gather")
    assert len(loops) == 2
    for name in loops:
        behind = list(behind_products(bodies, name, "all-gather"))
        print(name, behind)
        # Not those of the layer's first products: there is nothing to compute before them.
        assert sum(map(bool, behind)) >= len(behind) / 3
