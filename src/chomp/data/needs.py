"""What a config's data needs to be there: packages, files, a tokenizer."""

import os
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

from chomp.config.data import DataConfig, FileSource
from chomp.data.sources.formats import ARROW_SUFFIXES
from chomp.data.sources.patterns import find_paths
from chomp.data.sources.saved_dataset import is_saved_dataset
from chomp.data.token_cache.corpus import open_token_corpus
from chomp.data.tokenizers.load import load_tokenizer
from chomp.errors import ChompError, ConfigError
from chomp.system.extras import require_package


def check_packages(config: DataConfig) -> None:
    """Check that the packages that the data needs are installed.

    Raises:
        ConfigError: some are missing, each with what to install.
    """
    problems: list[str] = []
    for package, what in _packages(config):
        with _noting(problems):
            require_package(package, what)
    if problems:
        raise ConfigError(problems)


def missing_inputs(
    config: DataConfig, invalid: Collection[str] = (), *, tokenizer: bool = True
) -> list[str]:
    """Look for what the data needs on this machine; nothing is asked of the network.

    Args:
        config: the section `data`.
        invalid: dotted paths of keys whose values aren't the user's.
        tokenizer: whether the tokenizer is looked for, too.

    Returns:
        A line for each thing that is missing, or can't be used.
    """
    problems: list[str] = []
    backend = config.backend if "data.backend" not in invalid else None
    with _noting(problems):
        check_packages(config)
    if backend == "files" and config.files and "data.files" not in invalid:
        with _noting(problems):
            find_paths("data.files", config.files, config.text_key)
    if backend == "files" and config.eval_files:
        with _noting(problems):
            find_paths("data.eval_files", config.eval_files, config.text_key)
    if backend == "tokens" and config.tokens_dir:
        with _noting(problems):
            open_token_corpus(Path(config.tokens_dir))
    of_tokenizer = any(key.startswith("data.tokenizer") for key in invalid)
    if tokenizer and not of_tokenizer and _is_local(config.tokenizer.hf_name_or_path):
        with _noting(problems):
            load_tokenizer(config.tokenizer)
    return list(dict.fromkeys(problems))


@contextmanager
def _noting(problems: list[str]) -> Iterator[None]:
    try:
        yield
    except ChompError as error:
        problems += error.problems if isinstance(error, ConfigError) else [str(error)]


def _is_local(name: str | None) -> bool:
    """Whether it can only be a file or folder; other names may be those of the hub."""
    if name is None:
        return False
    path = os.path.expanduser(name)
    return os.path.exists(path) or path.endswith(".json") or path.startswith((".", os.sep))


def _packages(config: DataConfig) -> list[tuple[str, str]]:
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
