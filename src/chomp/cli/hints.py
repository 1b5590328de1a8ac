"""Hints for a command line that makes no sense: the one that was probably meant."""

import shlex
from collections.abc import Sequence
from difflib import get_close_matches
from itertools import pairwise
from pathlib import Path

import click

COMMANDS = {
    "run": "chomp train CONFIG",
    "start": "chomp train CONFIG",
    "fit": "chomp train CONFIG",
    "pretrain": "chomp train CONFIG",
    "resume": "chomp train --run-dir RUN --resume latest",
    "continue": "chomp train --run-dir RUN --resume latest",
    "sample": "chomp generate RUN --prompt TEXT",
    "prepare": "chomp data prepare CONFIG OUT",
    "tokenize": "chomp data prepare CONFIG OUT",
    "verify": "chomp checkpoints verify RUN",
    "show": "chomp config show CONFIG",
    "help": "chomp --help",
    "version": "chomp --version",
}
OPTIONS = {
    "-c": "give CONFIG without an option",
    "--config": "give CONFIG without an option",
    "-p": "write --prompt",
    "-d": "write --run-dir",
    "--output": "write --run-dir",
    "--output-dir": "write --run-dir",
    "--set": "write -o KEY=VALUE",
}


def hint(error: click.UsageError, words: Sequence[str]) -> str | None:
    """Return what to write instead; None where there is nothing to add.

    Args:
        error: what click says.
        words: those of the command line, after `chomp`.
    """
    match error:
        case click.NoSuchOption():
            return _option(error.option_name, words)
        case click.MissingParameter() if error.param and error.param.name in ("run_dir", "run"):
            newest = newest_run()
            return newest and f"the newest run here is {newest}"
    message = error.format_message()
    if message.startswith("No such command"):
        group = error.ctx.command.name if error.ctx and error.ctx.parent else None
        wrong = message.split("'")[1]
        return f"write {COMMANDS[wrong]}" if group is None and wrong in COMMANDS else None
    if message.startswith("Got unexpected extra argument"):
        return _extra(words)
    return None


def _option(name: str, words: Sequence[str]) -> str | None:
    """Tell how to write an option that isn't one."""
    if name in OPTIONS:
        return OPTIONS[name]
    key = key_of(name.lstrip("-"))
    if key is None or words[:1] not in (["train"], ["plan"], ["bench"], ["prove-resume"]):
        return None
    value = next((after for word, after in pairwise(words) if word == name), "")
    return f"values of the configuration are set with -o: -o {key}={value or 'VALUE'}"


def key_of(name: str) -> str | None:
    """Return the configuration's key that an option was named after."""
    from chomp.config.keys import known_paths

    wanted = name.partition("=")[0].replace("-", "_")
    paths = [path for path in known_paths() if path == wanted or path.endswith("." + wanted)]
    return min(paths, key=lambda path: path.count("."), default=None)


def _extra(words: Sequence[str]) -> str | None:
    """Tell how to write what was left over."""
    for place, word in enumerate(words):
        value = words[place + 1] if place + 1 < len(words) else ""
        before = words[place - 1] if place else ""
        if before in ("-o", "--override") and "=" not in word:
            return f"write it in one word: -o {word}={value}"
        if "=" in word and before not in ("-o", "--override") and not word.startswith("-"):
            return f"values of the configuration are set with -o: -o {shlex.quote(word)}"
    if words[:1] == ["generate"]:
        return f"the prompt is an option: --prompt {shlex.quote(words[-1])}"
    return None


def newest_run(root: Path = Path("runs")) -> Path | None:
    """Return the newest run folder below `root`."""
    try:
        records = [(path.stat().st_mtime, path.parent) for path in root.glob("*/run.json")]
    except OSError:
        return None
    return max(records, default=(0.0, None))[1]


def not_a_config(path: Path) -> str | None:
    """Say what to give instead of a CONFIG that is a folder, or isn't there."""
    if path.is_dir():
        if (path / "run.json").exists():
            return f"to go on with this run: chomp train --run-dir {path} --resume latest"
        there = sorted(file.name for file in path.glob("*.y*ml"))[:3]
        return f"it holds {', '.join(there)}" if there else None
    if path.exists():
        return None
    folder = path.parent
    others = [file.name for file in folder.glob("*.y*ml")] if folder.is_dir() else []
    near = get_close_matches(path.name, others, n=1)
    return f"did you mean {folder / near[0]}?" if near else None
