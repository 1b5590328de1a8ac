"""Language models by name."""

from chomp.models.build import build_model

__all__ = ["build_model"]
