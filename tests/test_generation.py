import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from chomp.generation import (
    SampleMaker,
    Sampling,
    choose_prompt,
    generate_ids,
    stream_ids,
    stream_pieces,
)
from chomp.models import build_model

KEY = jax.random.PRNGKey(11)
PROMPT = [104, 101, 111, 35]
# As in the test of the command, for the sake of the compile cache.
SAMPLING = Sampling(24, temperature=0.7, top_k=20, top_p=0.9, eos_id=2)


@pytest.fixture(scope="module")
def params(make_config: Callable[..., Any]) -> Any:
    model = build_model(make_config("megalodon").model, isolate_documents=False)
    return jax.jit(model.init)(jax.random.PRNGKey(3))


def test_streaming_gives_what_the_whole_call_gives(params: Any):
    """Over the end of a chunk (16 tokens), where the state of generation rolls over."""
    whole = generate_ids(params, PROMPT, SAMPLING, KEY)
    assert len(whole) == 24
    assert list(stream_ids(params, PROMPT, SAMPLING, KEY)) == whole
    assert generate_ids(params, PROMPT, SAMPLING, jax.random.PRNGKey(12)) != whole


def test_greedy_tokens_are_the_likeliest_of_the_model_without_cache(params: Any):
    """Each next token from a fresh pass over all before it."""
    continuation = generate_ids(params, PROMPT, Sampling(max_tokens=20, temperature=0.0), KEY)
    ids = PROMPT + continuation
    padded = jnp.asarray([ids + [0] * (48 - len(ids))], jnp.int32)
    logits, _ = jax.jit(lambda p, i: p(i, deterministic=True)[:2])(params, padded)
    likeliest = np.asarray(logits[0].argmax(-1))[len(PROMPT) - 1 : len(ids) - 1]
    assert continuation == likeliest.tolist()


def test_the_end_token_ends_and_is_left_out(params: Any):
    free = generate_ids(params, PROMPT, SAMPLING, KEY)
    end = free[7]
    ending = dataclasses.replace(SAMPLING, eos_id=end)
    assert generate_ids(params, PROMPT, ending, KEY) == free[: free.index(end)]
    assert list(stream_ids(params, PROMPT, ending, KEY)) == free[: free.index(end)]


@pytest.mark.parametrize("length", [1, 2, 15, 16, 100])
def test_pieces_after_a_prompt_read_in_parts_are_the_whole(params: Any, length: int):
    prompt = [3 + number * number % 90 for number in range(length)]
    sampling = Sampling(37, temperature=0.0)
    pieces = list(stream_pieces(params, prompt, sampling, KEY))
    whole = generate_ids(params, prompt, sampling, KEY)
    assert [token for piece in pieces for token in piece] == whole
    assert [len(piece) for piece in pieces] == [16, 16, 5]


def test_the_end_token_ends_pieces(params: Any):
    whole = generate_ids(params, PROMPT, Sampling(40, temperature=0.0), KEY)
    end = whole[20]
    ending = Sampling(40, temperature=0.0, eos_id=end)
    pieces = stream_pieces(params, PROMPT, ending, KEY)
    assert [token for piece in pieces for token in piece] == whole[: whole.index(end)]


def test_options_that_are_not_set_are_left_to_the_library():
    assert Sampling(5).options() == {}
    assert Sampling(5, temperature=0.0, top_p=0.5).options() == {"temperature": 0.0, "top_p": 0.5}


def test_a_prompt_is_the_first_or_the_last_part_of_a_long_document():
    rng = np.random.default_rng(0)
    ids = list(range(100))
    chosen = [choose_prompt(ids, 10, rng) for _ in range(200)]
    assert all(prompt in (ids[:10], ids[-10:]) for prompt in chosen)
    assert 60 < sum(prompt == ids[:10] for prompt in chosen) < 140


@pytest.mark.parametrize("length", [1, 9, 10])
def test_a_prompt_is_all_of_a_short_document(length: int):
    ids = list(range(length))
    assert choose_prompt(ids, 10, np.random.default_rng(0)) == ids


class Texts:
    """A stream of them."""

    def __init__(self, texts: list[str]):
        self._texts = iter(texts)

    def next_document(self) -> str:
        return next(self._texts)


def test_a_sample_continues_a_part_of_the_next_document(
    params: Any, texts: list[str], make_config: Callable[..., Any]
):
    from chomp.data import load_tokenizer

    tokenizer = load_tokenizer(make_config("megalodon").data.tokenizer)
    reports: list[dict[str, Any]] = []

    def make(seed: int) -> SampleMaker:
        return SampleMaker(
            documents=Texts(texts),
            tokenizer=tokenizer,
            prompt_limit=4,
            sampling=SAMPLING,
            seed=seed,
        )

    first, again, other = make(1), make(1), make(2)
    for step in (10, 20, 30):
        reports += [make_sample(params, step) for make_sample in (first, again, other)]
    for report, text in zip(reports[::3], texts, strict=False):
        # No EOS: the continuation follows the very last character of the prompt.
        assert report["prompt"] in (text[:4], text[-4:])
    assert reports[0::3] == reports[1::3]
    assert reports[0::3] != reports[2::3]
    assert [report["step"] for report in reports[::3]] == [10, 20, 30]
    assert all(0 < len(report["continuation"]) <= 24 for report in reports)
