"""Text from a model: prompts, sampling settings, whole or streamed continuations."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int, PRNGKeyArray
from megalodon_jax import GenerationState, MegalodonForCausalLM, ModelCache, generate

PIECE = 16
"""Tokens that are generated before somebody looks whether they are enough."""


@dataclass(frozen=True)
class Sampling:
    """Settings for choosing tokens.

    Attributes:
        max_tokens: tokens to generate at most.
        temperature: 0 takes the most likely token; None: the library's default, 1.
        top_k: choose among the k most likely tokens; None: among all.
        top_p: choose among the most likely tokens that make up this probability; None: all.
        eos_id: ends a continuation; None: nothing does.
    """

    max_tokens: int
    temperature: float | None = None
    top_k: int | None = None
    top_p: float | None = None
    eos_id: int | None = None

    def options(self) -> dict[str, Any]:
        """Return the settings that are set, as the library names them."""
        values = {
            "temperature": self.temperature,
            "top_k": self.top_k,
            "top_p": self.top_p,
            "eos_token_id": self.eos_id,
        }
        return {name: value for name, value in values.items() if value is not None}


def choose_prompt(ids: Sequence[int], limit: int, rng: np.random.Generator) -> list[int]:
    """Return all of `ids`, or where there are more than `limit` the first or last `limit`."""
    if len(ids) <= limit:
        return list(ids)
    return list(ids[:limit] if rng.random() < 0.5 else ids[-limit:])


def generate_ids(
    params: MegalodonForCausalLM, prompt: Sequence[int], sampling: Sampling, key: PRNGKeyArray
) -> list[int]:
    """Return a continuation of `prompt` in one compiled call, without the end token."""
    ids, _, _ = generate(
        params, jnp.asarray([prompt], jnp.int32), sampling.max_tokens, key, **sampling.options()
    )
    return _until_end(np.asarray(ids)[0, len(prompt) :].tolist(), sampling.eos_id)


def stream_ids(
    params: MegalodonForCausalLM, prompt: Sequence[int], sampling: Sampling, key: PRNGKeyArray
) -> Iterator[int]:
    """Yield a continuation of `prompt` token by token, without the end token."""
    ids = jnp.asarray([prompt], jnp.int32)
    state: GenerationState | None = None
    for _ in range(sampling.max_tokens):
        ids, kept, next_key = generate(
            params, ids, 1, key, state=state, return_state=True, **sampling.options()
        )
        # With `return_state` and a key these are what the library returns.
        assert isinstance(kept, GenerationState) and next_key is not None
        state, key = kept, next_key
        token = int(ids[0, -1])
        if token == sampling.eos_id:
            return
        yield token
        ids = jnp.zeros((1, 0), jnp.int32)


def stream_pieces(
    params: MegalodonForCausalLM, prompt: Sequence[int], sampling: Sampling, key: PRNGKeyArray
) -> Iterator[list[int]]:
    """Yield a continuation some tokens at a time, without the end token.

    All lengths of prompts and continuations share a few compiled programs.
    """
    cache = _read_prompt(params, prompt[:-1])
    ids, state = jnp.asarray([prompt[-1:]], jnp.int32), None
    for left in range(sampling.max_tokens, 0, -PIECE):
        found, kept, next_key = generate(
            *(params, ids, PIECE, key),
            cache=cache,
            state=state,
            return_state=True,
            **sampling.options(),
        )
        assert isinstance(kept, GenerationState) and next_key is not None
        piece = np.asarray(found)[0, ids.shape[1] :].tolist()
        yield _until_end(piece, sampling.eos_id)[:left]
        if sampling.eos_id in piece:
            return
        cache, state, key = None, kept, next_key
        ids = jnp.zeros((1, 0), jnp.int32)


def _read_prompt(params: MegalodonForCausalLM, ids: Sequence[int]) -> ModelCache | None:
    """Return the state after some tokens, read in whole chunks and then in ever smaller parts."""
    size = params.config.chunk_size
    cache, at = None, 0
    while at < len(ids):
        while len(ids) - at < size:
            size = max(1, size // 8)
        cache = _advance(params, cache, jnp.asarray([ids[at : at + size]], jnp.int32))
        at += size
    return cache


@eqx.filter_jit
def _advance(
    params: MegalodonForCausalLM, cache: ModelCache | None, ids: Int[Array, "batch time"]
) -> ModelCache:
    _, cache = params(ids, cache=cache, return_cache=True)
    assert cache is not None
    return cache


def _until_end(ids: list[int], eos_id: int | None) -> list[int]:
    return ids[: ids.index(eos_id)] if eos_id in ids else ids


class Documents(Protocol):
    """A stream of texts."""

    def next_document(self) -> str:
        """Return the next document's text."""
        ...


class SampleMaker:
    """Continues a part of the next document and reports it."""

    def __init__(
        self,
        *,
        documents: Documents,
        tokenizer: Any,
        prompt_limit: int,
        sampling: Sampling,
        seed: int,
    ):
        """Prepare to sample.

        Args:
            documents: the sample stream.
            tokenizer: has `encode_prompt` and `decode`.
            prompt_limit: tokens of a prompt at most.
            sampling: how to choose tokens.
            seed: seed of the choice of prompts and tokens; each step derives its own keys.
        """
        self._documents, self._tokenizer = documents, tokenizer
        self._prompt_limit, self._sampling = prompt_limit, sampling
        self._seed = seed

    def __call__(self, params: MegalodonForCausalLM, step: int) -> dict[str, Any]:
        """Return a sample's record; the same document, step and seed give the same text."""
        ids = self._tokenizer.encode_prompt(self._documents.next_document())
        prompt = choose_prompt(ids, self._prompt_limit, np.random.default_rng([self._seed, step]))
        key = jax.random.fold_in(jax.random.PRNGKey(self._seed), step)
        continuation = generate_ids(params, prompt, self._sampling, key)
        return {
            "step": step,
            "prompt": self._tokenizer.decode(prompt),
            "continuation": self._tokenizer.decode(continuation),
        }
