"""A saved model as lm_eval asks it: likelihoods of continuations and texts, and generation."""

from collections.abc import Sequence, Set
from typing import Any

import jax
from jaxtyping import PRNGKeyArray
from lm_eval.api.model import TemplateLM  # pyright: ignore[reportMissingImports]
from lm_eval.models.utils import normalize_gen_kwargs  # pyright: ignore[reportMissingImports]
from megalodon_jax import MegalodonForCausalLM
from tqdm import tqdm

from chomp.data import BatchSpec, Tokenizer
from chomp.data.sources.documents import Document
from chomp.data.tokenize import encode
from chomp.errors import DataError
from chomp.evaluation.continuations import ContinuationScorer
from chomp.evaluation.documents import DocumentScorer
from chomp.generation import Sampling, stream_pieces
from chomp.system.console import Console
from chomp.system.terminal import one_line

KNOWN = {"until", "max_gen_toks", "do_sample", "temperature", "top_k", "top_p"}
"""Settings of generation that a task may have."""
Request = tuple[Any, list[int], list[int]]
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
        self._params, self._tokens, self._console = params, tokenizer, console
        self._continuations, self._documents = ContinuationScorer(params, layout), scorer
        self._begin = tokenizer.encode_prompt("")
        before = self._begin[-1] if self._begin else tokenizer.eos_id
        if before is None:
            raise DataError(
                "data.tokenizer: it adds no BOS token and has no EOS token, so that nothing stands "
                "before a request without a context"
            )
        self._before = before
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
        self, requests: Sequence[Request], disable_tqdm: bool = False, **_: Any
    ) -> list[tuple[float, bool]]:
        """Return the log-likelihood of each continuation, and whether greedy choice gives it."""
        found: list[tuple[float, bool]] = [(0.0, True)] * len(requests)
        scores = self._continuations.score([request[1:] for request in requests])
        bar = tqdm(scores, desc="Likelihoods", total=len(found), disable=disable_tqdm)
        for number, likelihood in bar:
            found[number] = (likelihood.log_p, likelihood.greedy)
            self.cache_hook.add_partial("loglikelihood", requests[number][0], found[number])
        return found

    def loglikelihood_rolling(self, requests: Any, disable_tqdm: bool = False) -> list[float]:
        """Return the log-likelihood of whole texts: the nats of `chomp eval --per-document`.

        A text is a document of the run: in rows of `train.seq_len` tokens, with BOS and EOS where
        the run adds them, each token but the first scored once. One with none to score gives 0.
        """
        documents = [Document(request.args[0], key) for key, request in enumerate(requests)]
        found = [0.0] * len(documents)
        encoded = encode(documents, self._tokens, None)
        scores = self._documents.score_each(
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
        root = jax.random.PRNGKey(0)
        for request in tqdm(requests, desc="Continuations", disable=disable_tqdm):
            context, settings = request.args
            text = self._continue(context, settings, jax.random.fold_in(root, len(found)))
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
