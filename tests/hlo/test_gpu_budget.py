"""What a training step may do on a GPU: a small Megalodon, compiled for one that isn't there."""

import re
from collections.abc import Callable
from typing import Any

import pytest

from chomp.config import Config
from chomp.hlo.accelerators import accelerator
from chomp.hlo.compiled import compile_traced
from chomp.hlo.figures import Figures, figures
from chomp.hlo.roofline import Cluster
from chomp.hlo.target import has_gpu_compiler
from chomp.trainer.accelerator_program import compiler_options, trace_step_for

pytestmark = [
    pytest.mark.gpu_program,
    pytest.mark.skipif(not has_gpu_compiler(), reason="the extra `plan` isn't installed"),
]

LAYERS, MICROBATCHES = 2, 2
BUDGET = {
    "unknown_length_loops": 0,
    "host_waits": 0,
    "float64_instructions": 0,
    "float_atomic_kernels": 0,
    # Forward, recomputed and backward, of one layer and one microbatch.
    "operations of a layer": 195,
    "operations of the optimizer": 500,
    # Loops around anything but microbatches.
    "inner loops": 0,
}
# Source lines, as `chomp bench program` names them, whose products may be of float32.
FLOAT32 = (
    r"optax/contrib/_muon\.py",  # the matrices' own iteration
    r"ops/accelerator/complex_ema\.py",  # with states, in TF32
    r"ops/accelerator/(timestep_norm|segment_sums|embedding)\.py",  # sums over segments
)
LAYER_PARTS = ("moving average", "norm", "attention", "projections", "feed-forward")
H100 = accelerator("h100")
SECTIONS: dict[str, dict[str, Any]] = {
    "model": {
        "model_dim": 128,
        "num_layers": LAYERS,
        "z_dim": 32,
        "value_dim": 256,
        "ffn_hidden_dim": 320,
        "cema_ndim": 8,
        "chunk_size": 64,
        "norm_num_groups": 8,
        "use_checkpoint": True,
        "compute_dtype": "bfloat16",
    },
    "data": {"isolate_documents": True, "packing_mode": "bin"},
    "train": {
        "batch_size": 8,
        "grad_accum": MICROBATCHES,
        "seq_len": 256,
        "deterministic": False,
    },
}


@pytest.fixture(scope="session")
def step(make_config: Callable[..., Config]) -> Figures:
    config = make_config("megalodon", **SECTIONS)
    _, traced = trace_step_for(config, H100, 1)
    return figures(compile_traced(traced, compiler_options(H100)), Cluster(H100, 1), 1)


@pytest.fixture(scope="session")
def counted(step: Figures) -> dict[str, float]:
    values = step.to_json()
    parts = {row.name: row.operations for row in step.parts}
    in_layers = sum(parts.get(part, 0) for part in LAYER_PARTS)
    return {
        "unknown_length_loops": values["unknown_length_loops"],
        "host_waits": values["host_waits"],
        "float64_instructions": len(values["float64_instructions"]),
        "float_atomic_kernels": values["float_atomic_kernels"],
        "operations of a layer": in_layers / LAYERS / MICROBATCHES,
        "operations of the optimizer": parts["optimizer"],
        "inner loops": values["loops"] - 1,
    }


@pytest.mark.parametrize("name", BUDGET)
def test_the_step_keeps_to_its_budget(counted: dict[str, float], name: str) -> None:
    assert counted[name] <= BUDGET[name]


def test_products_are_of_bfloat16(step: Figures) -> None:
    wide = {place.line for _, place, _ in step.float32_products}
    assert [line for line in sorted(wide) if not re.match("|".join(FLOAT32), line)] == []


def test_the_host_is_never_called(step: Figures) -> None:
    targets = {one.target for one in step.program.module.instructions.values()}
    assert [target for target in targets if "callback" in target or "host" in target] == []


def test_each_operation_has_its_part(step: Figures) -> None:
    parts = {row.name: row.seconds for row in step.parts}
    assert parts.get("other", 0) < 0.1 * step.seconds
    assert {*LAYER_PARTS, "loss", "embedding", "optimizer"} <= set(parts)
