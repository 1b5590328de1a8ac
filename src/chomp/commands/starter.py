"""A first config: a shipped one, written beside the user's data."""

import json
import re
from collections.abc import Iterable
from importlib.resources import files
from pathlib import Path
from typing import NamedTuple

from chomp.errors import ConfigError, DiskError

SCHEMA_LINES = re.compile(r"\A# yaml-language-server:.*\n#\n")
"""They name a file of the repository."""
SHIPPED = "configs/"
"""Prefix of file names in a shipped config."""
TOKENIZER = "quickstart-tokenizer.json"
PLAIN = re.compile(r"[\w./][\w./ -]*(?<! )")
"""Paths that YAML takes as they are."""
NO_TEXT = re.compile(r"[\d.e+-]+|null|true|false", re.IGNORECASE)
"""Texts that YAML reads as a number, a truth value or null."""


class Draft(NamedTuple):
    """A config that isn't written yet."""

    name: str
    """Of its file."""
    text: str
    companions: tuple[str, ...] = ()
    """Names of shipped files that it needs beside it."""


def shipped(name: str) -> str:
    """Return the text of a shipped config or tokenizer."""
    installed = files("chomp") / "configs" / name
    clone = Path(__file__).parents[3] / "configs" / name  # sources that aren't installed, or -e
    return (installed if installed.is_file() else clone).read_text(encoding="utf-8")


def shipped_draft(name: str, folder: Path) -> Draft:
    """Make a config of a shipped one, for a folder."""
    text = SCHEMA_LINES.sub("", shipped(name))
    needs_tokenizer = f"{SHIPPED}{TOKENIZER}" in text
    text = text.replace(f"{SHIPPED}{TOKENIZER}", scalar(str(folder / TOKENIZER)))
    text = text.replace(f"{SHIPPED}{name}", str(folder / name))
    return Draft(name, text, (TOKENIZER,) if needs_tokenizer else ())


def scalar(text: str) -> str:
    """Write a text for YAML, in quotes only where it needs them."""
    plain = PLAIN.fullmatch(text) and not NO_TEXT.fullmatch(text)
    return text if plain else json.dumps(text, ensure_ascii=False)


def write_draft(draft: Draft, folder: Path) -> list[Path]:
    """Write a config and the files that it needs; what is there is never overwritten.

    Returns:
        What was written, the config first.

    Raises:
        ConfigError: the config, or another file of a companion's name, is there.
        DiskError: the folder can't be written to.
    """
    texts = {folder / draft.name: draft.text}
    written = []
    try:
        for name in draft.companions:
            if not _holds(folder / name, shipped(name)):
                texts[folder / name] = shipped(name)
        check_free(texts)
        folder.mkdir(parents=True, exist_ok=True)
        for path, text in texts.items():
            with path.open("x", encoding="utf-8") as file:
                file.write(text)
            written.append(path)
    except OSError as error:
        raise DiskError(
            f"{error.filename or folder}: can't be written: {error.strerror}"
        ) from error
    return written


def check_free(paths: Iterable[Path]) -> None:
    """Check that files to write aren't there. Raises ConfigError where some are."""
    if there := [path for path in paths if path.exists() or path.is_symlink()]:
        raise ConfigError(
            [
                f"{path}: is there already, and nothing is overwritten; "
                "move it away, or write elsewhere with --dir"
                for path in there
            ]
        )


def _holds(path: Path, text: str) -> bool:
    return path.is_file() and path.read_bytes() == text.encode()
