"""Scores of a saved run on texts."""

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jax

from chomp.commands.saved_model import SavedModel, model_of, open_run_config, restore_model
from chomp.config import Config
from chomp.config.parallel import ParallelConfig
from chomp.errors import DataError, ResumeError
from chomp.evaluation.documents import DocumentScorer
from chomp.evaluation.positions import PositionScore, StreamScorer
from chomp.evaluation.texts import EvaluationTexts, OtherTexts, other_texts, own_texts
from chomp.run.run_folder import RunFolder
from chomp.system.console import Console
from chomp.system.terminal import one_line
from chomp.trainer.components import batch_spec
from chomp.trainer.program import build_program
from chomp.trainer.score import Score


@dataclass(frozen=True)
class EvaluateRequest:
    """A request for scores.

    Attributes:
        run_dir: folder of the run.
        step: `latest` or a saved step.
        texts: to score; None: the run's own evaluation documents.
        per_document: score each document as well.
        context: tokens that a document is read as one stream of; None: as in training.
        trust_remote_code: run the Python code that comes with the run's tokenizer.
        ema: take the average of the parameters instead of the newest ones.
    """

    run_dir: Path
    step: str
    texts: OtherTexts | None = None
    per_document: bool = False
    context: int | None = None
    trust_remote_code: bool = False
    ema: bool = False


@dataclass(frozen=True)
class Evaluation:
    """Scores of a model.

    Attributes:
        run: folder of the run.
        step: of the checkpoint.
        documents: how many were scored.
        described: what they are.
        score: of all.
        each: place and score of each, where that was asked for.
        positions: scores of ranges of positions, where documents were read as streams.
        by_name: scores of the run's sources and evaluation sets, where it has several.
        ema: whether the parameters were their average.
    """

    run: Path
    step: int
    documents: int
    described: str
    score: Score
    each: Sequence[tuple[str, Score]] = ()
    positions: Sequence[PositionScore] = ()
    by_name: Mapping[str, Score] = field(default_factory=dict)
    ema: bool = False

    def as_values(self) -> dict[str, Any]:
        """Return it as JSON values."""
        values: dict[str, Any] = {
            "run": str(self.run),
            "step": self.step,
            "ema": self.ema,
            "documents": self.documents,
            "texts": self.described,
            **self.score.as_values(),
        }
        if self.by_name:
            values["by_name"] = {name: each.as_values() for name, each in self.by_name.items()}
        if self.each:
            values["per_document"] = [
                {"document": place, **score.as_values()} for place, score in self.each
            ]
        if self.positions:
            values["by_position"] = [
                {"first": found.first, "last": found.last, **found.score.as_values()}
                for found in self.positions
            ]
        return values

    def lines(self) -> list[str]:
        """Return what a person reads of it."""
        score, plural = self.score, "s" if self.documents != 1 else ""
        averaged = ", averaged parameters" if self.ema else ""
        lines = [
            f"run         {self.run}, step {self.step}{averaged}",
            f"texts       {self.documents:,} document{plural} {self.described}",
            f"loss        {score.loss:.4f} nats per token, {score.targets:,} targets",
            f"perplexity  {score.perplexity:.3f}",
            f"bits/byte   {score.bits_per_byte:.4f}, {score.bytes:,} bytes",
        ]
        if self.by_name:
            lines += ["", "bits/byte     loss      targets  source or evaluation set"]
            lines += [
                f"{each.bits_per_byte:9.4f} {each.loss:8.4f} {each.targets:12,}  {name}"
                for name, each in self.by_name.items()
            ]
        if self.positions:
            lines += ["", "positions            bits/byte     loss      targets"]
            lines += [
                f"{found.first:>6} to {found.last:<9} {found.score.bits_per_byte:10.4f} "
                f"{found.score.loss:8.4f} {found.score.targets:12,}"
                for found in self.positions
            ]
        if self.each:
            lines += ["", "bits/byte     loss    targets  document"]
            lines += [
                f"{each.bits_per_byte:9.4f} {each.loss:8.4f} {each.targets:10,}  {place}"
                for place, each in self.each
            ]
        return [one_line(line) for line in lines]


def evaluate(request: EvaluateRequest, console: Console) -> Evaluation:
    """Score texts with the model of a checkpoint.

    Args:
        request: which model, and which texts.
        console: shows warnings.

    Raises:
        ResumeError: the folder holds no run, or no such checkpoint that is good; or its model
            can't be given a context of its own.
        DataError: the texts can't be read, or give nothing to predict.
    """
    folder = RunFolder(request.run_dir)
    config = open_run_config(folder, request.trust_remote_code, console)
    saved = restore_model(config, folder, request.step, console, ema=request.ema)
    texts = _texts(request, saved, console)
    if request.context is not None:
        return _by_position(request, saved, texts)
    scorer = scorer_of(saved)
    scores = [(each, scorer.score(each.documents)) for each in texts]
    each: list[tuple[str, Score]] = []
    if request.per_document:
        each = [
            (part.place(found), score)
            for part in texts
            for found, score in scorer.score_each(part.documents)
        ]
    return Evaluation(
        *(request.run_dir, saved.step, *_counted(texts)),
        _sum([score for part, score in scores if part.counted]),
        each,
        by_name={part.name: score for part, score in scores if part.name},
        ema=saved.ema,
    )


def _counted(texts: Sequence[EvaluationTexts]) -> tuple[int, str]:
    """Return how many documents the total is of, and what they are."""
    counted = [part for part in texts if part.counted]
    described = [f"of {part.name}, {part.described}" for part in counted if part.name]
    return (
        sum(len(part.documents) for part in counted),
        "; ".join(described) or counted[0].described,
    )


def scorer_of(saved: SavedModel) -> DocumentScorer:
    """Return what scores documents as an evaluation in training does, on one device."""
    alone: Config = saved.config.model_copy(update={"parallel": ParallelConfig()})
    program = build_program(alone, devices=jax.local_devices()[:1])
    return DocumentScorer(alone, saved.tokenizer, program, saved.params, batch_spec(alone))


def _texts(
    request: EvaluateRequest, saved: SavedModel, console: Console
) -> Sequence[EvaluationTexts]:
    if request.texts:
        return [other_texts(saved.config.data, saved.tokenizer, request.texts, console)]
    then = saved.checkpoints.restore_run(saved.step).meta["identity"]["data"]["content"]
    return own_texts(saved.config, saved.tokenizer, then, console)


def _by_position(
    request: EvaluateRequest, saved: SavedModel, texts: Sequence[EvaluationTexts]
) -> Evaluation:
    config = saved.config
    if not model_of(config).can_generate:
        raise ResumeError(
            f"{request.run_dir}: the {config.model.backend} model carries no state from token to "
            "token; leave --context out"
        )
    scorer = StreamScorer(
        saved.params, saved.tokenizer, batch_spec(config), request.context or config.train.seq_len
    )
    parts = [part for part in texts if part.counted]
    found = scorer.score([document for part in parts for document in part.documents])
    count, described = _counted(texts)
    if not found:
        raise DataError(f"the {count} documents {described} hold no token to predict")
    each = []
    if request.per_document:
        each = [
            (part.place(document), _sum([position.score for position in alone]))
            for part in parts
            for document in part.documents
            if (alone := scorer.score([document]))
        ]
    total = _sum([position.score for position in found])
    return Evaluation(
        *(request.run_dir, saved.step, count, described, total, each, found), ema=saved.ema
    )


def _sum(parts: Sequence[Score]) -> Score:
    return functools.reduce(Score.plus, parts)
