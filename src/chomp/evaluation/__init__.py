"""Scores of a saved model on texts."""
