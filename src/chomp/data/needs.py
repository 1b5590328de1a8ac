"""What a config's data needs besides what is always installed, known without opening it."""

import os
from pathlib import Path

from chomp.config.data import DataConfig, FileSource
from chomp.data.sources.formats import ARROW_SUFFIXES
from chomp.data.sources.saved_dataset import is_saved_dataset
from chomp.errors import ConfigError
from chomp.system.extras import require_package


def check_packages(config: DataConfig) -> None:
    """Check that the packages that the data needs are installed.

    Raises:
        ConfigError: some are missing, each with what to install.
    """
    problems: list[str] = []
    for package, what in _needs(config):
        try:
            require_package(package, what)
        except ConfigError as error:
            problems += error.problems
    if problems:
        raise ConfigError(problems)


def _needs(config: DataConfig) -> list[tuple[str, str]]:
    """Return packages, and what needs them."""
    needs = []
    if config.backend == "hf" and not is_saved_dataset(os.path.expanduser(config.hf_dataset)):
        needs.append(("datasets", "data.backend: hf"))
    entries = config.files + config.eval_files if config.backend == "files" else ()
    names = [entry.path if isinstance(entry, FileSource) else entry for entry in entries]
    if arrow := [name for name in names if name.endswith(ARROW_SUFFIXES)]:
        needs.append(("pyarrow", f"data.files: {arrow[0]}"))
    tokenizer = config.tokenizer
    if tokenizer.kind == "hf" and tokenizer.hf_name_or_path:
        folder = Path(os.path.expanduser(tokenizer.hf_name_or_path))
        python = tokenizer.hf_trust_remote_code
        if python or (folder.is_dir() and not (folder / "tokenizer.json").is_file()):
            what = "its own Python code" if python else "a folder without a tokenizer.json"
            needs.append(("transformers", f"data.tokenizer.hf_name_or_path: {folder}, {what},"))
    return needs
