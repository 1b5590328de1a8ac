"""A saved model as lm_eval asks it: likelihoods of continuations and texts, and generation."""

from collections.abc import Sequence, Set
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray
from lm_eval.api.model import TemplateLM  # pyright: ignore[reportMissingImports]
from lm_eval.models.utils import normalize_gen_kwargs  # pyright: ignore[reportMissingImports]
from megalodon_jax import MegalodonForCausalLM
from tqdm import tqdm

from chomp.data import BatchSpec, Tokenizer
from chomp.data.sources.documents import Document
from chomp.data.tokenize import encode
from chomp.errors import DataError
from chomp.evaluation.documents import DocumentScorer
from chomp.generation import Sampling, stream_pieces
from chomp.system.console import Console
from chomp.system.terminal import one_line

SHORTEST = 16
"""Tokens that the shortest program reads; each further one reads twice as many, up to a block."""
BLOCK = 256
"""Tokens read at a time of longer requests, in whole chunks of attention."""
KNOWN = {"until", "max_gen_toks", "do_sample", "temperature", "top_k", "top_p"}
"""Settings of generation that a task may have."""
Pair = tuple[Any, list[int], list[int]]
"""A request as lm_eval has it, the ids of its context and those of its continuation."""


class SavedLM(TemplateLM):
    """Answers lm_eval's requests with a Megalodon; no context is cut, however long it is.

    Args:
        params: of the library's model.
        tokenizer: of the run.
        layout: of training batches: as many requests at a time as it has rows.
        scorer: scores whole texts.
        console: shows warnings.

    Raises:
        DataError: the tokenizer has no token that a text could begin after.
    """

    def __init__(
        self,
        params: MegalodonForCausalLM,
        tokenizer: Tokenizer,
        layout: BatchSpec,
        scorer: DocumentScorer,
        console: Console,
    ):
        super().__init__()
        self._params, self._tokens, self._layout = params, tokenizer, layout
        self._scorer, self._console = scorer, console
        self._begin = tokenizer.encode_prompt("")
        before = self._begin[-1] if self._begin else tokenizer.eos_id
        if before is None:
            raise DataError(
                "data.tokenizer: it adds no BOS token and has no EOS token, so that nothing stands "
                "before a request without a context"
            )
        self._before = before
        chunk = params.config.chunk_size
        self._block = chunk * max(1, BLOCK // chunk)
        self._key = jax.random.PRNGKey(0)
        self._unknown: set[str] = set()

    @property
    def eot_token_id(self) -> int:
        """The token before a text without a context: BOS where the run adds it, else EOS."""
        return self._before

    def tok_encode(
        self, string: str, add_special_tokens: bool | None = None, **_: Any
    ) -> list[int]:
        """Return the ids of a document's beginning; with False those of a later part of one."""
        ids = self._tokens.encode_prompt(string)
        return ids[len(self._begin) :] if add_special_tokens is False else ids

    def _encode_pair(self, context: str, continuation: str) -> tuple[list[int], list[int]]:
        before, after = super()._encode_pair(context, continuation)
        if continuation and not after:
            # One token holds the end of the context and all of the continuation.
            whole = self.tok_encode(context + continuation)
            before, after = whole[:-1], whole[-1:]
        return before or [self._before], after

    def _loglikelihood_tokens(
        self, requests: list[Pair], disable_tqdm: bool = False, **_: Any
    ) -> list[tuple[float, bool]]:
        """Return the log-likelihood of each continuation, and whether greedy choice gives it."""
        found: list[tuple[float, bool]] = [(0.0, True)] * len(requests)
        rows = self._layout.batch
        # Those of like length together, the longest first: memory runs out at the start or never.
        order = sorted(range(len(requests)), key=lambda number: -_length(requests[number]))
        starts = range(0, len(order), rows)
        for at in tqdm(starts, desc="Likelihoods", disable=disable_tqdm):
            numbers = order[at : at + rows]
            scores = self._score([requests[number] for number in numbers])
            for number, score in zip(numbers, scores, strict=True):
                found[number] = score
                self.cache_hook.add_partial("loglikelihood", requests[number][0], score)
        return found

    def _score(self, requests: Sequence[Pair]) -> list[tuple[float, bool]]:
        """Score as many requests as a batch has rows, block by block with the state carried."""
        inputs = max(map(_length, requests)) - 1
        block = self._block if inputs > self._block else _program_length(inputs, self._block)
        blocks = -(-inputs // block)
        ids = np.full((self._layout.batch, blocks * block + 1), self._layout.pad_id, np.int32)
        wanted = np.zeros(ids.shape, bool)
        for row, (_, context, continuation) in enumerate(requests):
            end = len(context) + len(continuation)
            ids[row, :end] = context + continuation
            wanted[row, len(context) : end] = True
        nats, greedy = np.zeros(len(ids)), np.ones(len(ids), bool)
        cache = None
        for at in range(0, blocks * block, block):
            labels = slice(at + 1, at + block + 1)
            lost, likeliest, cache = _read(
                self._params,
                cache,
                jnp.asarray(ids[:, at : at + block]),
                jnp.asarray(ids[:, labels]),
            )
            there = wanted[:, labels]
            nats += np.where(there, np.asarray(lost, np.float64), 0.0).sum(axis=1)
            greedy &= (np.asarray(likeliest) | ~there).all(axis=1)
        return [(-float(nats[row]), bool(greedy[row])) for row in range(len(requests))]

    def loglikelihood_rolling(self, requests: Any, disable_tqdm: bool = False) -> list[float]:
        """Return the log-likelihood of whole texts: the nats of `chomp eval --per-document`.

        A text is a document of the run: in rows of `train.seq_len` tokens, with BOS and EOS where
        the run adds them, each token but the first scored once. One with none to score gives 0.
        """
        documents = [Document(request.args[0], key) for key, request in enumerate(requests)]
        found = [0.0] * len(documents)
        encoded = encode(documents, self._tokens, None)
        scores = self._scorer.score_each(
            tqdm(encoded, desc="Likelihoods of texts", disable=disable_tqdm)
        )
        for document, score in scores:
            found[document.key] = -score.nats
        for request, nats in zip(requests, found, strict=True):
            self.cache_hook.add_partial("loglikelihood_rolling", request.args, nats)
        return found

    def generate_until(self, requests: Any, disable_tqdm: bool = False) -> list[str]:
        """Return continuations, cut before the first of the texts that end them."""
        found = []
        for number, request in enumerate(
            tqdm(requests, desc="Continuations", disable=disable_tqdm)
        ):
            context, settings = request.args
            text = self._continue(context, settings, jax.random.fold_in(self._key, number))
            self.cache_hook.add_partial("generate_until", request.args, text)
            found.append(text)
        return found

    def _continue(self, context: str, settings: dict[str, Any], key: PRNGKeyArray) -> str:
        wanted: dict[str, Any] = dict(normalize_gen_kwargs(settings))
        self._warn_of_unknown(wanted.keys() - KNOWN)
        until = [text for text in wanted["until"] if text]
        temperature = wanted.get("temperature", 0.0) if wanted["do_sample"] else 0.0
        sampling = Sampling(
            wanted["max_gen_toks"],
            temperature,
            wanted.get("top_k") or None,
            wanted.get("top_p"),
            self._tokens.eos_id,
        )
        ids = self.tok_encode(context) or [self._before]
        seen: list[int] = []
        text = ""
        for piece in stream_pieces(self._params, ids, sampling, key):
            seen += piece
            text = self._tokens.decode(seen)
            if ends := [text.index(end) for end in until if end in text]:
                return text[: min(ends)]
        return text

    def _warn_of_unknown(self, names: Set[str]) -> None:
        if new := names - self._unknown:
            self._unknown |= new
            self._console.warn(
                f"generation_kwargs: {one_line(', '.join(sorted(new)))} changes nothing here; "
                f"known are {', '.join(sorted(KNOWN))}"
            )


def _length(request: Pair) -> int:
    return len(request[1]) + len(request[2])


def _program_length(inputs: int, longest: int) -> int:
    """Return the length of the shortest program that reads so many tokens."""
    return min(longest, max(SHORTEST, 1 << (inputs - 1).bit_length()))


@eqx.filter_jit
def _read(
    params: MegalodonForCausalLM,
    cache: Any,
    ids: Int[Array, "rows block"],
    labels: Int[Array, "rows block"],
) -> tuple[Float[Array, "rows block"], Bool[Array, "rows block"], Any]:
    logits, cache = params(ids, cache=cache, return_cache=True)
    log_p = jax.nn.log_softmax(logits.astype(jnp.float32), axis=-1)
    lost = -jnp.take_along_axis(log_p, labels[..., None], axis=-1)[..., 0]
    return lost, jnp.argmax(log_p, axis=-1) == labels, cache
