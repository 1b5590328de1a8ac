"""Scores of a model on texts: in training and after it."""

from chomp.evaluation.score import Score, sum_losses

__all__ = ["Score", "sum_losses"]
