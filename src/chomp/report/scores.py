"""Scores of the documents that a run is evaluated on."""

from pathlib import Path

from chomp.commands.evaluate import EvaluateRequest, evaluate
from chomp.report.compare import DocumentScore, Scores
from chomp.system.console import Console


def document_scores(path: Path, step: str, trust_remote_code: bool, console: Console) -> Scores:
    """Score each evaluation document of a run with the model of one of its checkpoints.

    Documents without a byte to predict are left out.

    Args:
        path: the run folder.
        step: `latest` or a saved step.
        trust_remote_code: run the Python code that comes with the run's tokenizer.
        console: shows warnings.

    Raises:
        ResumeError: the folder holds no run, or no such checkpoint that is good.
        DataError: the documents can't be read.
    """
    request = EvaluateRequest(path, step, per_document=True, trust_remote_code=trust_remote_code)
    return {
        place: DocumentScore(score.bits_per_byte, score.bytes)
        for place, score in evaluate(request, console).each
        if score.bytes
    }
