"""Run folders that are incomplete or spoilt (damaged checkpoints are a subject of their own)."""

import json
import shutil
from contextlib import ExitStack
from pathlib import Path

from bad_input.case import RESUME, Case, Prepare, put


def spoil(**contents: str | bytes) -> Prepare:
    """Overwrite files of the run; `__` in a name stands for a dot."""

    def prepare(place: Path, _: ExitStack) -> None:
        for name, content in contents.items():
            put(place / "run" / name.replace("__", "."), content)

    return prepare


def remove(*names: str) -> Prepare:
    """Delete files or folders of the run."""

    def prepare(place: Path, _: ExitStack) -> None:
        for name in names:
            path = place / "run" / name
            shutil.rmtree(path) if path.is_dir() else path.unlink()

    return prepare


def _odd_rows(place: Path, _: ExitStack) -> None:
    with (place / "run" / "metrics.jsonl").open("ab") as file:
        file.write(b'[1, 2]\n"text"\n{"step": "x"}\n\xff\n{"step": 1')


def _tokenizer(**contents: str) -> Prepare:
    def prepare(place: Path, _: ExitStack) -> None:
        for name, content in contents.items():
            put(place / "run" / "tokenizer" / f"{name}.json", content)

    return prepare


def _folder_instead(name: str) -> Prepare:
    def prepare(place: Path, held: ExitStack) -> None:
        remove(name)(place, held)
        (place / "run" / name).mkdir()

    return prepare


def _log_elsewhere(place: Path, _: ExitStack) -> None:
    path = place / "run" / "config_resolved.json"
    config = json.loads(path.read_text("utf-8"))
    config["logging"]["log_file"] = str(place / "elsewhere" / "train.log")
    put(path, json.dumps(config))


RESOLVED = ("run/config_resolved.json",)
MORE = RESUME + " -o train.steps=6 --allow-change optim"
GENERATE = "generate run --prompt x"
RUN_FOLDERS = (
    Case(
        "no config_resolved.json",
        RESUME,
        ("config_resolved.json", "CONFIG"),
        prepare=remove("config_resolved.json"),
    ),
    Case(
        "config_resolved.json cut short",
        RESUME,
        ("config_resolved.json", "CONFIG"),
        prepare=spoil(config_resolved__json='{"model": {"backend": "du'),
    ),
    Case(
        "config_resolved.json empty",
        RESUME,
        ("config_resolved.json", "CONFIG"),
        prepare=spoil(config_resolved__json=""),
    ),
    Case(
        "config_resolved.json of another program",
        RESUME,
        "unknown key 'learning'",
        prepare=spoil(config_resolved__json='{"learning": 1}'),
    ),
    Case(
        "config_original.yaml of bytes",
        RESUME,
        "config_original.yaml",
        prepare=spoil(config_original__yaml=b"\xff\xfe\x00"),
    ),
    Case(
        "no config_original.yaml",
        RESUME,
        "config_original.yaml",
        prepare=remove("config_original.yaml"),
    ),
    Case(
        "generating: no config_resolved.json",
        GENERATE,
        "config_resolved.json",
        prepare=remove("config_resolved.json"),
    ),
    Case(
        "generating: config_resolved.json cut short",
        GENERATE,
        "config_resolved.json",
        prepare=spoil(config_resolved__json='{"model": {"ba'),
    ),
    Case(
        "generating: config_resolved.json is a list",
        GENERATE,
        "config_resolved.json",
        prepare=spoil(config_resolved__json="[1, 2]"),
    ),
    Case(
        "generating: config_resolved.json is no text",
        GENERATE,
        "config_resolved.json",
        prepare=spoil(config_resolved__json=b"\xff\xfe\x00"),
    ),
    Case(
        "tokenizer snapshot without its file",
        MORE,
        "tokenizer",
        prepare=remove("tokenizer/chomp_tokenizer.json"),
    ),
    Case(
        "tokenizer snapshot cut short",
        MORE,
        "tokenizer",
        prepare=_tokenizer(chomp_tokenizer='{"kind": "by'),
    ),
    Case(
        "tokenizer snapshot is a list", MORE, "tokenizer", prepare=_tokenizer(chomp_tokenizer="[]")
    ),
    Case(
        "tokenizer snapshot with ids of text",
        MORE,
        "tokenizer",
        prepare=_tokenizer(chomp_tokenizer='{"pad": "x", "bos": "y", "eos": "z"}'),
    ),
    Case(
        "tokenizer snapshot is gone (loaded anew)",
        MORE,
        prepare=remove("tokenizer"),
        code=0,
        changes=RESOLVED,
    ),
    Case(
        "generating: no checkpoints folder",
        GENERATE,
        "can't generate",
        prepare=remove("checkpoints"),
    ),
    Case(
        "odd rows in metrics.jsonl (put aside)",
        MORE,
        prepare=_odd_rows,
        code=0,
        changes=(*RESOLVED, "run/metrics.jsonl"),
    ),
    Case(
        "metrics.jsonl is a folder",
        MORE,
        "metrics.jsonl",
        prepare=_folder_instead("metrics.jsonl"),
        changes=RESOLVED,
    ),
    Case(
        "samples.jsonl is a folder",
        MORE,
        "samples.jsonl",
        prepare=_folder_instead("samples.jsonl"),
        changes=RESOLVED,
    ),
    Case(
        "ledger.jsonl is a folder",
        MORE,
        "ledger.jsonl",
        prepare=_folder_instead("ledger.jsonl"),
    ),
    Case(
        "a log elsewhere that only config_resolved.json asks for",
        MORE,
        "-o logging.log_file=",
        prepare=_log_elsewhere,
    ),
    Case("train.log is a folder", MORE, "logging.log_file", prepare=_folder_instead("train.log")),
)
