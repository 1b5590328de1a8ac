"""Language models by name."""

from chomp.models.build import build_model
from chomp.models.megalodon.flops import model_flops_per_token, product_dtype

__all__ = ["build_model", "model_flops_per_token", "product_dtype"]
