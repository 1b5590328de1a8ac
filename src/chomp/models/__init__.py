"""Language models by name."""

from chomp.models.base import LanguageModel
from chomp.models.build import build_model, register_model

__all__ = ["LanguageModel", "build_model", "register_model"]
