"""The modules that are copied into a folder, against megalodon-jax. Needs the extra `export`."""

import itertools
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from random_model import OPTIONS, random_model

from chomp.data.tokenizers.base import SpecialIds
from chomp.data.tokenizers.byte import ByteTokenizer
from chomp.errors import ExportError
from chomp.export.comparison import compare, make_sample
from chomp.export.hf_folder import write_hf
from chomp.export.weights import in_dtypes, logits_of

torch = pytest.importorskip("torch", reason="needs the extra `export`")
pytestmark = pytest.mark.torch

TOKENIZER = ByteTokenizer(3, SpecialIds(0, 1, 2), add_bos=False, add_eos=False)


@pytest.fixture
def load(tmp_path: Path):
    """Write a model to a folder, and load it as a user does, but for the copy of the code."""
    from chomp.export.huggingface.modeling_megalodon import MegalodonForCausalLM

    def loaded(model: Any) -> Any:
        write_hf(model, TOKENIZER, tmp_path)
        return MegalodonForCausalLM.from_pretrained(tmp_path).eval()

    return loaded


def tokens(rows: int, time: int, vocab: int = 97) -> np.ndarray:
    return np.random.default_rng(time).integers(0, vocab, (rows, time))


def run(model: Any, ids: np.ndarray, mask: np.ndarray | None = None) -> np.ndarray:
    with torch.no_grad():
        seen = None if mask is None else torch.tensor(mask)
        out = model(torch.tensor(ids), attention_mask=seen, use_cache=False)
    return out.logits.numpy()


def in_pieces(model: Any, ids: np.ndarray, ends: list[int]) -> np.ndarray:
    cache, parts, begin = None, [], 0
    for end in ends:
        with torch.no_grad():
            out = model(torch.tensor(ids[:, begin:end]), cache=cache, use_cache=True)
        cache, begin = out.get("cache", out.get("past_key_values")), end
        parts.append(out.logits.numpy())
    return np.concatenate(parts, 1)


@pytest.mark.parametrize("values", [*itertools.product((False, True), repeat=len(OPTIONS))])
def test_every_option_whole_in_pieces_and_padded(values: tuple[bool, ...], load: Any):
    """Five chunks, in float32, within 1e-5 of JAX."""
    model = random_model(**dict(zip(OPTIONS, values, strict=True)))
    ids = tokens(3, 75)
    expected, exported = logits_of(model, ids), load(model)
    np.testing.assert_allclose(run(exported, ids), expected, atol=1e-5, rtol=0)
    pieces = in_pieces(exported, ids, [5, 6, 40, 41, 75])
    np.testing.assert_allclose(pieces, expected, atol=1e-5, rtol=0)
    padded, mask = np.zeros((3, 90), int), np.zeros((3, 90), int)
    places = slice(15, 90), slice(0, 75), slice(7, 82)  # left, right, on both sides
    for row, place in enumerate(places):
        padded[row, place], mask[row, place] = ids[row], 1
    found = run(exported, padded, mask)
    for row, place in enumerate(places):
        np.testing.assert_allclose(found[row, place], expected[row], atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    "shape",
    [
        {"num_heads": 1, "z_dim": 16},
        {"num_heads": 4, "value_dim": 96, "cema_ndim": 1},
        {"chunk_size": 1},
        {"chunk_size": 300, "num_layers": 3},
        {"norm_num_groups": 12, "norm_eps": 1e-3, "rope_base": 500.0},
    ],
    ids=str,
)
@pytest.mark.parametrize("time", [1, 16, 17, 600])
def test_shapes_and_lengths(shape: dict[str, Any], time: int, load: Any):
    model = random_model(**shape)
    ids = tokens(2, time)
    found = run(load(model), ids)
    np.testing.assert_allclose(found, logits_of(model, ids), atol=1e-5, rtol=0)


def test_bfloat16_is_as_close_as_the_library_is_to_itself(load: Any):
    model = random_model(jnp.bfloat16, swiglu=True)
    ids = tokens(2, 75)
    exported = load(model)
    kept = {name for name, each in exported.named_parameters() if each.dtype == torch.float32}
    assert {"layers.0.mega.cema.alpha", "layers.0.nffn.norm.weight", "layers.1.mega.gamma"} <= kept
    assert not any(name.endswith(("wz.weight", "fc1.weight", "embed.weight")) for name in kept)
    exact = logits_of(in_dtypes(model, "float32", "float32"), ids)
    ours, own = (
        np.sqrt(np.square(found - exact).mean())
        for found in (run(exported, ids), logits_of(model, ids))
    )
    assert 0 < ours <= 1.5 * own


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("how", [{}, {"num_beams": 3}], ids=["greedy", "beams"])
def test_generation_is_the_same_with_a_cache_without_and_padded(
    side: str, how: dict[str, Any], load: Any
):
    exported = load(random_model())
    options = {"max_new_tokens": 40, "do_sample": False, "pad_token_id": 0, **how}
    prompts = [tokens(1, length)[0].tolist() for length in (3, 20, 37)]
    alone = []
    for prompt in prompts:
        ids = torch.tensor([prompt])
        mask = torch.ones_like(ids)
        out = [
            exported.generate(ids, attention_mask=mask, use_cache=use, eos_token_id=96, **options)
            for use in (True, False)
        ]
        assert torch.equal(*out)
        alone.append(out[0][0, len(prompt) :].tolist())
    ids, mask = torch.zeros(3, 37, dtype=torch.long), torch.zeros(3, 37, dtype=torch.long)
    for row, prompt in enumerate(prompts):
        place = slice(37 - len(prompt), 37) if side == "left" else slice(0, len(prompt))
        ids[row, place], mask[row, place] = torch.tensor(prompt), 1
    out = exported.generate(ids, attention_mask=mask, eos_token_id=96, **options)[:, 37:].tolist()
    assert [row[: len(one)] for row, one in zip(out, alone, strict=True)] == alone


def test_a_cache_holds_no_more_than_a_chunk(load: Any):
    exported = load(random_model())
    ids = torch.tensor(tokens(2, 75))
    with torch.no_grad():
        cache = exported(ids, use_cache=True).get("cache")
        assert cache.columns == 75
        assert cache.layers[0].keys.shape[1] == 75 % 16
        for _ in range(40):
            exported(ids[:, :1], cache=cache, use_cache=True)
            assert cache.layers[0].keys.shape[1] < 16


def test_the_loss_is_that_of_transformers_and_reaches_every_parameter(load: Any):
    exported = load(random_model(swiglu=True, rescale_nffn=True))
    ids = torch.tensor(tokens(2, 40))
    out = exported(ids, labels=ids)
    logits, labels = out.logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten()
    expected = torch.nn.functional.cross_entropy(logits, labels)
    torch.testing.assert_close(out.loss, expected)
    out.loss.backward()
    assert [name for name, each in exported.named_parameters() if each.grad is None] == []


def test_a_mask_that_is_too_short_and_another_s_cache_are_refused(load: Any):
    from transformers import DynamicCache

    exported = load(random_model())
    ids = torch.tensor(tokens(2, 8))
    with pytest.raises(ValueError, match="at least as long as input_ids"):
        exported(ids, attention_mask=torch.ones(2, 7))
    with pytest.raises(TypeError, match="got DynamicCache"):
        exported(ids, cache=DynamicCache())


def test_the_comparison_finds_a_wrong_weight(tmp_path: Path):
    """A sign in one norm, or one matrix of two layers exchanged."""
    model = random_model()
    write_hf(model, TOKENIZER, tmp_path)
    sample = make_sample(model, [5, 6, 7])
    assert "32 of 32 greedy tokens" in compare(model, tmp_path, sample)
    from safetensors.numpy import load_file, save_file

    path = tmp_path / "model.safetensors"
    tensors = load_file(path)
    for change in (
        {"layers.1.mega.timenorm.bias": -tensors["layers.1.mega.timenorm.bias"]},
        {"layers.0.mega.wr.weight": tensors["layers.1.mega.wr.weight"]},
        {"rope.freqs": tensors["rope.freqs"] * 1.5},
    ):
        save_file(tensors | change, path, metadata={"format": "pt"})
        with pytest.raises(ExportError, match="isn't the model"):
            compare(model, tmp_path, sample)
