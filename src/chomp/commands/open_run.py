"""A saved run in Python: its parameters, tokenizer, metrics; text and scores."""

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax

from chomp.commands.evaluate import scorer_of
from chomp.commands.saved_model import SavedModel, model_of, open_run_config, restore_model
from chomp.config import Config
from chomp.data import Tokenizer
from chomp.data.sources.documents import Document
from chomp.data.tokenize import encode
from chomp.errors import DataError, ResumeError
from chomp.evaluation.documents import DocumentScorer
from chomp.generation import Sampling, generate_ids
from chomp.run.run_folder import RunFolder, run_path, split_step
from chomp.system.console import LOG
from chomp.system.json_text import parse_json
from chomp.system.path_limits import why
from chomp.trainer.score import Score


class Run:
    """A run's folder, opened at a checkpoint; the arrays are read when they are first needed.

    Args:
        path: `RUN` or `RUN:STEP`.
        trust_remote_code: run the Python code that comes with the run's tokenizer.
        ema: take the average of the parameters (`train.ema`) instead of the newest ones.

    Raises:
        ResumeError: the folder holds no run.
        ConfigError: its configuration can't be used.
    """

    def __init__(self, path: str, *, trust_remote_code: bool = False, ema: bool = False):
        folder, self._step = split_step(path)
        self._ema = ema
        self._folder = RunFolder(run_path(folder))
        self._config = open_run_config(self._folder, trust_remote_code, LOG)

    def __repr__(self) -> str:
        return f"chomp.open_run({str(self.path)!r})"

    @functools.cached_property
    def _saved(self) -> SavedModel:
        return restore_model(self._config, self._folder, self._step, LOG, ema=self._ema)

    @functools.cached_property
    def _scorer(self) -> DocumentScorer:
        return scorer_of(self._saved)

    @property
    def path(self) -> Path:
        """The run folder."""
        return self._folder.path

    @property
    def config(self) -> Config:
        """The configuration, fitted to the tokenizer."""
        return self._saved.config

    @property
    def step(self) -> int:
        """Finished steps of the checkpoint."""
        return self._saved.step

    @property
    def params(self) -> Any:
        """The parameters: of the Megalodon backend a `megalodon_jax.MegalodonForCausalLM`.

        That is a function of token ids [batch, time], which returns logits and a cache.
        """
        return self._saved.params

    @property
    def model(self) -> Any:
        """The model, a `LanguageModel`: its methods take the parameters."""
        return model_of(self.config)

    @property
    def tokenizer(self) -> Tokenizer:
        """The run's tokenizer: `encode_batch` and `decode`."""
        return self._saved.tokenizer

    def generate(
        self,
        prompt: str = "",
        *,
        max_tokens: int = 256,
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float | None = None,
        seed: int = 0,
    ) -> str:
        """Return a continuation of a prompt, without the prompt.

        Args:
            prompt: the text to continue.
            max_tokens: longest continuation.
            temperature: divides the logits; 0 takes the likeliest token each time.
            top_k: choose among the k likeliest tokens; None: all.
            top_p: choose among the likeliest tokens of this total probability; None: all.
            seed: the same one gives the same text.

        Raises:
            ResumeError: the model can't generate, or there is no good checkpoint.
        """
        if not self.model.can_generate:
            raise ResumeError(f"{self.path}: only a model of the backend megalodon can generate")
        sampling = Sampling(max_tokens, temperature, top_k, top_p, self.tokenizer.eos_id)
        ids = self.tokenizer.encode_prompt(prompt)
        # As `chomp generate` does for its first sample.
        key = jax.random.fold_in(jax.random.PRNGKey(seed), 0)
        return self.tokenizer.decode(generate_ids(self.params, ids, sampling, key))

    def score(self, texts: Sequence[str]) -> list[Score]:
        """Return the loss, perplexity and bits per byte of each text.

        Each is scored alone, in rows of `train.seq_len` tokens.

        Raises:
            DataError: a text has less than two tokens: there is nothing to predict.
        """
        documents = [Document(text, number) for number, text in enumerate(texts)]
        encoded = encode(documents, self.tokenizer, None)
        found = {document.key: score for document, score in self._scorer.score_each(encoded)}
        if lacking := [number for number in range(len(texts)) if number not in found]:
            raise DataError(
                f"texts[{lacking[0]}] has less than two tokens: there is nothing to score"
            )
        return [found[number] for number in range(len(texts))]

    def metrics(self) -> Any:
        """Return the rows of metrics: a DataFrame where pandas is installed, else dicts."""
        path = self._folder.inside(self._config.logging.metrics_file)
        try:
            lines = path.read_bytes().split(b"\n")[:-1]  # a run may be writing the last one
            rows = [parse_json(line) for line in lines]
        except (OSError, ValueError) as error:
            raise ResumeError(f"{path} can't be read ({why(error)})") from error
        try:
            import pandas
        except ImportError:
            return rows
        return pandas.DataFrame(rows)
