from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from chomp.config import ModelConfig
from chomp.errors import ConfigError
from chomp.models import build_model
from chomp.models.megalodon.model import megalodon_config
from chomp.trainer.program import batch_shapes, build_program
from chomp.trainer.step import make_train_step
from chomp.types import IGNORE_LABEL, Batch

TIME = 64
LENGTHS = (23, 9, 17)  # the second and third begin within a chunk of 16, the rest is padding


@pytest.fixture(scope="module")
def documents(texts: list[str]) -> list[np.ndarray]:
    long = [text for text in texts if len(text) >= max(LENGTHS)]
    pairs = zip(long, LENGTHS, strict=False)
    return [np.frombuffer(t.encode()[:n], np.uint8).astype(np.int32) + 3 for t, n in pairs]


def packed(documents: list[np.ndarray], scored: int) -> Batch:
    """One row with all documents, of which one is scored."""
    ids, labels, segments = np.zeros(TIME, np.int32), np.full(TIME, IGNORE_LABEL), np.zeros(TIME)
    at = 0
    for number, document in enumerate(documents):
        end = at + len(document)
        ids[at:end], segments[at:end] = document, number + 1
        if number == scored:
            labels[at + 1 : end] = document[1:]
        at = end
    rows = (ids, labels.astype(np.int32), segments.astype(np.int32), segments > 0)
    return Batch(*(array[None] for array in rows))


Loss = Callable[[list[np.ndarray], int], tuple[float, int]]


@pytest.fixture(scope="module")
def losses(make_config: Callable[..., Any]) -> dict[bool, dict[bool, Loss]]:
    """By `fast_ops` and `isolate_documents`: loss and targets of one document of a row."""
    models = {}
    for fast in (True, False):
        config = make_config("megalodon", model={"fast_ops": fast, "num_layers": 2}).model
        models[fast] = {
            isolate: build_model(config, isolate_documents=isolate) for isolate in (True, False)
        }
    params = jax.jit(models[True][True].init)(jax.random.PRNGKey(0))

    def loss_of(model: Any) -> Loss:
        loss = jax.jit(lambda params, rows: model.loss(params, rows, None))

        def of_row(documents: list[np.ndarray], scored: int) -> tuple[float, int]:
            total, targets = loss(params, packed(documents, scored))
            return float(total), int(targets)

        return of_row

    return jax.tree.map(loss_of, models)


@pytest.fixture(params=[True, False], ids=["fast", "library"])
def per_document(
    request: pytest.FixtureRequest, losses: dict[bool, dict[bool, Loss]]
) -> dict[bool, Loss]:
    """By `isolate_documents`: the loss and targets of one document in a row with others."""
    return losses[request.param]


@pytest.mark.parametrize("isolate", [True, False])
def test_the_loss_of_two_layers_is_the_library_s(
    losses: dict[bool, dict[bool, Loss]], documents: list[np.ndarray], isolate: bool
):
    for number in range(len(LENGTHS)):
        ours, theirs = (losses[fast][isolate](documents, number) for fast in (True, False))
        np.testing.assert_allclose(ours, theirs, rtol=1e-5)


@pytest.mark.parametrize("number", range(len(LENGTHS)))
def test_an_isolated_document_has_the_loss_that_it_has_alone(
    per_document: Any, documents: list[np.ndarray], number: int
):
    alone, targets = per_document[True]([documents[number]], 0)
    in_a_row, same = per_document[True](documents, number)
    assert targets == same == LENGTHS[number] - 1
    assert in_a_row == pytest.approx(alone, rel=1e-5)
    # Alone in a row there is nothing to be isolated from.
    assert per_document[False]([documents[number]], 0)[0] == pytest.approx(alone, rel=1e-5)


@pytest.mark.parametrize("number", range(1, len(LENGTHS)))
def test_otherwise_a_row_is_one_stream(per_document: Any, documents: list[np.ndarray], number: int):
    alone, _ = per_document[False]([documents[number]], 0)
    in_a_row, _ = per_document[False](documents, number)
    assert abs(in_a_row - alone) > 1e-3 * alone
    first, _ = per_document[False](documents, 0)
    assert first == pytest.approx(per_document[False]([documents[0]], 0)[0], rel=1e-5)


def test_the_configuration_is_handed_on_value_by_value():
    changed = {
        "vocab_size": 512,
        "model_dim": 48,
        "num_layers": 3,
        "num_heads": 2,
        "z_dim": 24,
        "value_dim": 96,
        "ffn_hidden_dim": 120,
        "cema_ndim": 8,
        "chunk_size": 64,
        "norm_num_groups": 8,
        "norm_eps": 1e-6,
        "rope_base": 5000.0,
        "swiglu": True,
        "rescale_nffn": True,
        "scale_emb": True,
        "share_emb": True,
        "norm_affine": False,
        "dropout": 0.1,
        "attention_dropout": 0.2,
        "hidden_dropout": 0.3,
        "pad_token_id": 7,
        "bos_token_id": 8,
        "eos_token_id": 9,
        "init_mode": "xavier",
        "use_checkpoint": True,
        "output_size": 512,
        "param_dtype": "bfloat16",
        "compute_dtype": "float32",
        "softmax_dtype": "bfloat16",
    }
    theirs = megalodon_config(ModelConfig(**changed))
    renamed = {"softmax_dtype": "attention_softmax_dtype"}
    for name, value in changed.items():
        found = getattr(theirs, renamed.get(name, name))
        assert (jnp.dtype(found).name if name.endswith("dtype") else found) == value, name
    # What is not listed here is the other backend's, ours alone, or has one value only.
    rest = set(ModelConfig.model_fields) - set(changed)
    ours = {name for name in rest if name.startswith("init_")}
    assert rest - ours == {"backend", "d_model", "fast_ops", "kernels", "accum_dtype", "options"}


def test_kernels_are_for_nvidia_gpus():
    config = ModelConfig(kernels="pallas")
    assert build_model(config, isolate_documents=False, platform="gpu").kernels == "pallas"
    for platform, name in ((None, "cpu"), ("tpu", "tpu")):
        with pytest.raises(ConfigError, match=rf"^model\.kernels: .* \(got pallas on {name}\)$"):
            build_model(config, isolate_documents=False, platform=platform)


@pytest.mark.parametrize(
    ("changes", "platform", "kernels"),
    [
        ({}, "gpu", "pallas"),
        ({"fast_ops": False}, "gpu", "xla"),
        ({"kernels": "xla"}, "gpu", "xla"),
        ({}, "tpu", "xla"),
        ({}, None, "xla"),
    ],
)
def test_kernels_by_default(changes: dict[str, Any], platform: str | None, kernels: str):
    model = build_model(ModelConfig(**changes), isolate_documents=False, platform=platform)
    assert model.kernels == kernels


@pytest.mark.parametrize(
    ("capability", "kernels"),
    [("9.0", "pallas"), ("8.0", "pallas"), ("7.5", "xla"), ("gfx942", "xla")],
)
def test_kernels_are_for_bfloat16_on_tensor_cores(monkeypatch, capability: str, kernels: str):
    """Only what JAX says of its device is made up: there is none here."""
    gpu = SimpleNamespace(compute_capability=capability)
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    monkeypatch.setattr(jax, "local_devices", lambda: [gpu])
    assert build_model(ModelConfig(), isolate_documents=False).kernels == kernels


def test_dropout_needs_a_key(make_config: Callable[..., Any], documents: list[np.ndarray]):
    config = make_config("megalodon", model={"dropout": 0.5})
    model = build_model(config.model, isolate_documents=False)
    params = jax.jit(model.init)(jax.random.PRNGKey(0))
    rows = packed(documents, 0)
    loss = jax.jit(lambda key: model.loss(params, rows, key)[0])
    one, same, other = (float(loss(jax.random.PRNGKey(seed))) for seed in (1, 1, 2))
    assert one == same != other
    assert float(jax.jit(lambda: model.loss(params, rows, None)[0])()) not in (one, other)


SWITCHES = [name for name, field in ModelConfig.model_fields.items() if field.annotation is bool]
SWITCHED = [*((name,) for name in SWITCHES), tuple(SWITCHES)]
SWITCHED += [tuple(name for name in SWITCHES if name != left) for left in SWITCHES]


@pytest.mark.parametrize("names", SWITCHED, ids=" ".join)
def test_every_switch_can_be_the_other_way(make_config: Any, names: tuple[str, ...]):
    """Each alone, all together, and all but one: parameters, loss and gradient can be traced."""
    values = {name: not ModelConfig.model_fields[name].default for name in names}
    if "share_emb" in names:
        values["init_zero_head"] = False  # there is none
    config = make_config("megalodon", model=values, train={"deterministic": False})
    program = build_program(config)
    _, metrics = jax.eval_shape(
        make_train_step(program.model, program.optimizer, deterministic=False),
        program.shapes,
        batch_shapes(2, 2, 64),
        program.rates,
    )
    assert metrics.loss.shape == ()


def test_parameters_of_a_scaled_embedding_are_made_in_a_program(make_config: Any):
    config = make_config("megalodon", model={"scale_emb": True})
    model = build_model(config.model, isolate_documents=False)
    params = jax.jit(model.init)(jax.random.PRNGKey(0))
    assert params.model.scale == pytest.approx(config.model.model_dim**0.5)
    casts = model.cast_dtypes(params)
    assert casts.model.embed.weight == params.model.embed.weight.dtype
