"""The same steps on one device and on meshes of eight. Runs in a process that has eight."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import pytest
from scaling_tables import least_bytes

from chomp.config import Config
from chomp.config.parallel import ParallelConfig
from chomp.distributed import device_bytes
from chomp.hlo.collectives import collectives
from chomp.trainer.program import (
    CompiledStep,
    TrainProgram,
    batch_shapes,
    build_program,
    compile_step,
)
from chomp.types import Batch, TrainState

LAYERS = 2
MODEL = {
    "num_layers": LAYERS,
    "model_dim": 64,
    "z_dim": 64,
    "value_dim": 64,
    "ffn_hidden_dim": 96,
    "swiglu": True,
}
DUMMY = {"d_model": 32}
BFLOAT16 = {"compute_dtype": "bfloat16"}
ACCUM, ROWS, TIME = 3, 8, 64


def program_for(config: Config, *, data: int, fsdp: int, **parallel: Any) -> TrainProgram:
    """The program of a config on the first data * fsdp devices."""
    parallel = ParallelConfig(data=data, fsdp=fsdp, **parallel)
    config = config.model_copy(update={"parallel": parallel})
    return build_program(config, devices=jax.devices()[: data * fsdp])


class Steps:
    """A config's compiled step on a mesh."""

    def __init__(self, setup: Any):
        self.setup = setup
        self.compiled: CompiledStep = compile_step(setup.program, setup.config.train)

    @property
    def text(self) -> str:
        return self.compiled.step.program.as_text()

    def after(self, batches: list[Batch]) -> tuple[TrainState, list[float], list[float]]:
        """State, losses and gradient norms, on the host."""
        train_program = self.setup.program
        state, losses, norms = train_program.init(), [], []
        for batch in batches:
            state, metrics = self.compiled.step(state, train_program.sharding.put_batch(batch))
            losses.append(float(metrics.loss))
            norms.append(float(metrics.grad_norm))
        return jax.device_get(state), losses, norms


@pytest.fixture(scope="module")
def batches() -> list[Batch]:
    """Uneven documents, and rows of padding alone, whose devices have no target."""
    rng = np.random.default_rng(0)
    found = []
    for _ in range(3):
        ids = rng.integers(3, 259, (ACCUM, ROWS, TIME)).astype(np.int32)
        segments = np.cumsum(rng.random(ids.shape) < 0.05, axis=-1, dtype=np.int32) + 1
        segments[0, 3] = segments[1, 5:] = segments[2, 0, 20:] = 0
        labels = np.where(segments > 0, ids, -100).astype(np.int32)
        found.append(
            Batch(np.where(segments > 0, ids, 0).astype(np.int32), labels, segments, segments > 0)
        )
    return found


@pytest.fixture(scope="module")
def steps(make_config: Callable[..., Any]) -> Callable[..., Steps]:
    """Compile a config's step on a mesh, once for all tests."""
    made: dict[str, Steps] = {}

    def build(backend: str, mesh: dict[str, Any], **sections: Any) -> Steps:
        key = repr((backend, sorted(mesh.items()), sections))
        if key not in made:
            made[key] = compiled(backend, mesh, **sections)
        return made[key]

    def compiled(backend: str, mesh: dict[str, Any], **sections: Any) -> Steps:
        train = {"batch_size": ROWS, "grad_accum": ACCUM, "seq_len": TIME}
        # A large epsilon: else Adam makes the rounding of the smallest gradients an update of 1.
        optim = {"adam": {"eps": 1e-3}, "name": sections.pop("optimizer", "adamw")}
        config = make_config(
            backend,
            model=(MODEL if backend == "megalodon" else DUMMY) | sections.pop("model", {}),
            train=train,
            optim=optim,
            data={"isolate_documents": True},
            parallel={"data": -1},
        )
        train_program = program_for(config, **mesh)
        config = config.model_copy(update={"parallel": ParallelConfig(**mesh)})
        setup = type("Setup", (), {"config": config, "program": train_program})
        return Steps(setup)

    return build


ONE = {"data": 1, "fsdp": 1}
MESHES = {
    "data": {"data": 8, "fsdp": 1},
    "fsdp": {"data": 1, "fsdp": 8},
    "both": {"data": 2, "fsdp": 4},
    "by layer": {"data": 2, "fsdp": 4, "gather": "layer"},
}


def close(left: Any, right: Any, tolerance: float) -> None:
    for a, b in zip(jax.tree.leaves(left), jax.tree.leaves(right), strict=True):
        np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance)


@pytest.fixture(scope="module")
def alone(steps: Callable[..., Steps], batches: list[Batch]) -> Any:
    return steps("megalodon", ONE).after(batches)


@pytest.mark.parametrize("name", ["both", "by layer"])
def test_megalodon_learns_the_same(
    name: str, alone: Any, steps: Callable[..., Steps], batches: list[Batch]
):
    state, losses, norms = steps("megalodon", MESHES[name]).after(batches)
    np.testing.assert_allclose(losses, alone[1], rtol=2e-6)
    np.testing.assert_allclose(norms, alone[2], rtol=1e-4)
    close(state.params, alone[0].params, 2e-5)


@pytest.fixture(scope="module")
def alone_in_bfloat16(steps: Callable[..., Steps], batches: list[Batch]) -> Any:
    return steps("megalodon", ONE, model=BFLOAT16).after(batches)


@pytest.mark.parametrize(("gather", "reduce_dtype"), [("step", "float32"), ("layer", "bfloat16")])
def test_a_model_in_bfloat16_learns_the_same(
    gather: str,
    reduce_dtype: str,
    alone_in_bfloat16: Any,
    steps: Callable[..., Steps],
    batches: list[Batch],
):
    """Up to the rounding of gradients, which a device makes of its own rows alone."""
    mesh = {"data": 2, "fsdp": 4, "gather": gather, "reduce_dtype": reduce_dtype}
    compiled = steps("megalodon", mesh, model=BFLOAT16)
    _, losses, norms = compiled.after(batches)
    # Forward the devices compute what one does, as parameters are cast before they are sent; but a
    # loop over layers is another program, which rounds elsewhere.
    np.testing.assert_allclose(losses[0], alone_in_bfloat16[1][0], rtol=5e-5)
    np.testing.assert_allclose(losses, alone_in_bfloat16[1], rtol=5e-4)
    np.testing.assert_allclose(norms, alone_in_bfloat16[2], rtol=1e-2)
    # CPUs fetch in bfloat16, but add up in float32 whatever the dtype is.
    config = compiled.setup.config
    in_float32 = config.parallel.model_copy(update={"reduce_dtype": "float32"})
    config = config.model_copy(update={"parallel": in_float32})
    sent = sum(one.times * one.sent for one in collectives(compiled.text, 8))
    assert sent <= 1.05 * least_bytes(config, compiled.setup.program)


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_a_bigram_model_learns_the_same_on_every_mesh(
    optimizer: str, steps: Callable[..., Steps], batches: list[Batch]
):
    expected = steps("dummy", ONE, optimizer=optimizer).after(batches)
    for mesh in MESHES.values():
        found = steps("dummy", mesh, optimizer=optimizer).after(batches)
        np.testing.assert_allclose(found[1], expected[1], rtol=2e-6)
        close(found[0].params, expected[0].params, 2e-5)


def test_state_is_cut_among_the_devices(make_config: Callable[..., Any]):
    config = make_config(
        "megalodon",
        model={"vocab_size": 2048, "model_dim": 256, "z_dim": 128, "value_dim": 256,
               "ffn_hidden_dim": 512, "num_layers": 2},
        train={"batch_size": ROWS},
    )  # fmt: skip
    whole = device_bytes(program_for(config, **ONE).shapes)
    for count in (2, 4, 8):
        part = device_bytes(program_for(config, data=1, fsdp=count).shapes)
        assert part * count == pytest.approx(whole, rel=0.05)


def test_gradients_are_reduced_once_a_step(steps: Callable[..., Steps]):
    """The microbatches' loop sends nothing, but what `gather: layer` fetches in each of them."""
    for name in ("data", "fsdp", "both"):
        found = collectives(steps("dummy", MESHES[name], optimizer="adamw").text, 8)
        assert found
        assert not [collective for collective in found if collective.trips]


def test_layers_are_fetched_one_by_one(steps: Callable[..., Steps]):
    """In the loops over microbatches and layers: forward and again backward."""
    found = collectives(steps("megalodon", MESHES["by layer"]).text, 8)
    inside = {
        (collective.kind, collective.trips) for collective in found if len(collective.trips) > 1
    }
    assert inside == {("all-gather", (ACCUM, LAYERS)), ("reduce-scatter", (ACCUM, LAYERS))}
    fetched = [c for c in found if c.kind == "all-gather" and len(c.trips) > 1]
    assert len(fetched) == 2 * sum(c.kind == "reduce-scatter" and len(c.trips) > 1 for c in found)


def test_a_batch_is_the_global_one(make_config: Callable[..., Any]):
    config = make_config("dummy", train={"batch_size": ROWS})
    sharding = program_for(config, data=8, fsdp=1).sharding
    shapes = batch_shapes(ACCUM, ROWS, TIME)
    placed = sharding.place_batch_shapes(shapes)
    assert placed.input_ids.shape == (ACCUM, ROWS, TIME)
    assert placed.input_ids.sharding.shard_shape(placed.input_ids.shape) == (ACCUM, 1, TIME)


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_a_layers_norms_are_of_all_its_pieces(
    steps: Callable[..., Steps], batches: list[Batch], optimizer: str
):
    def norms(**mesh: int) -> np.ndarray:
        setup = steps("dummy", mesh, optimizer=optimizer).setup
        train_program = setup.program
        norms = compile_step(train_program, setup.config.train, watch=True).norms
        assert norms
        batch = train_program.sharding.put_batch(batches[0])
        return np.asarray(norms(train_program.init(), batch))

    one = norms(data=1, fsdp=1)
    assert one.shape == (3, 2) and (one > 0).all()
    for mesh in ({"data": 8, "fsdp": 1}, {"data": 2, "fsdp": 4}):
        np.testing.assert_allclose(norms(**mesh), one, rtol=1e-5)
