"""What a config's data needs to be there: packages, files, a tokenizer."""

import os
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

from chomp.config.data import DataConfig, TokenizerConfig
from chomp.config.sources import FileSource
from chomp.data.all_sources import named_configs, source_named
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
    for package, what in _tokenizer_packages(config.tokenizer):
        with _noting(problems):
            require_package(package, what)
    needs = [need for alone in named_configs(config).values() for need in _packages(alone)]
    if any(each.hf_dataset for each in config.eval_sets):
        needs.append(("datasets", "data.eval_sets"))
    for package, what in dict(needs).items():
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
    with _noting(problems):
        check_packages(config)
    broken = [key for key in invalid if key.startswith(("data.sources", "data.eval_sets"))]
    for name, alone in ({} if broken else named_configs(config)).items():
        problems += _missing(alone, invalid, name)
    for texts in () if broken else config.eval_sets:
        with _noting(problems):
            if texts.files:
                find_paths(f"data.eval_sets, {texts.name}", texts.files, config.text_key)
    of_tokenizer = any(key.startswith("data.tokenizer") for key in invalid)
    if tokenizer and not of_tokenizer and _is_local(config.tokenizer.hf_name_or_path):
        with _noting(problems):
            load_tokenizer(config.tokenizer)
    return list(dict.fromkeys(problems))


def _missing(config: DataConfig, invalid: Collection[str], name: str) -> list[str]:
    """Look for the files of a single source."""
    problems: list[str] = []
    backend = config.backend if "data.backend" not in invalid else None
    if backend == "files" and config.files and "data.files" not in invalid:
        with _noting(problems), source_named(name):
            find_paths("data.files", config.files, config.text_key)
    if backend == "files" and config.eval_files:
        with _noting(problems), source_named(name):
            find_paths("data.eval_files", config.eval_files, config.text_key)
    if backend == "tokens" and config.tokens_dir:
        with _noting(problems), source_named(name):
            open_token_corpus(Path(config.tokens_dir))
    return problems


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
    """Return the packages that a single source needs, and what needs them."""
    needs = []
    if config.backend == "hf" and not is_saved_dataset(os.path.expanduser(config.hf_dataset)):
        needs.append(("datasets", "data.backend: hf"))
    entries = config.files + config.eval_files if config.backend == "files" else ()
    names = [entry.path if isinstance(entry, FileSource) else entry for entry in entries]
    if arrow := [name for name in names if name.endswith(ARROW_SUFFIXES)]:
        needs.append(("pyarrow", f"data.files: {arrow[0]}"))
    return needs


def _tokenizer_packages(tokenizer: TokenizerConfig) -> list[tuple[str, str]]:
    needs = []
    if tokenizer.kind == "hf" and tokenizer.hf_name_or_path:
        folder = Path(os.path.expanduser(tokenizer.hf_name_or_path))
        python = tokenizer.hf_trust_remote_code
        if python or (folder.is_dir() and not (folder / "tokenizer.json").is_file()):
            what = "its own Python code" if python else "a folder without a tokenizer.json"
            needs.append(("transformers", f"data.tokenizer.hf_name_or_path: {folder}, {what},"))
    return needs
