"""Packages that only some runs need: they come with an extra of the installation."""

import importlib.util

from chomp.errors import ConfigError

EXTRAS = {
    "datasets": "hub",
    "transformers": "hub",
    "pyarrow": "parquet",
    "wandb": "wandb",
    "tensorboard": "tensorboard",
    "mlflow": "mlflow",
}
"""The extra that brings a package."""


def is_importable(package: str) -> bool:
    """Say whether a package is installed, without importing it."""
    found = importlib.util.find_spec(package)
    return found is not None and found.origin is not None  # a mere folder of this name has none


def require_package(package: str, what: str) -> None:
    """Check that a package is installed.

    Args:
        package: its name.
        what: the key, and what of it needs the package; begins the message.

    Raises:
        ConfigError: it is missing.
    """
    if not is_importable(package):
        extra = EXTRAS[package]
        raise ConfigError([f"{what} needs the package {package}: run pip install 'chomp[{extra}]'"])
