from collections.abc import Callable
from pathlib import Path

import pytest

from chomp.config import Config, load_config
from chomp.errors import ConfigError

Load = Callable[..., Config]
Problems = Callable[..., list[str]]


@pytest.fixture
def load(tmp_path: Path) -> Load:
    """Load a config from its text."""

    def load_text(text: str, *overrides: str) -> Config:
        path = tmp_path / "config.yaml"
        path.write_text(text, encoding="utf-8")
        return load_config(path, overrides)

    return load_text


@pytest.fixture
def problems(load: Load, tmp_path: Path) -> Problems:
    """List what is wrong with a config given as text; the file is called FILE."""

    def of_text(text: str, *overrides: str) -> list[str]:
        with pytest.raises(ConfigError) as caught:
            load(text, *overrides)
        return [
            line.replace(str(tmp_path / "config.yaml"), "FILE") for line in caught.value.problems
        ]

    return of_text
