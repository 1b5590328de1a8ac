"""Damage every file of a run's checkpoints in four ways, and print what `latest` finds.

python scripts/damage_table.py runs/RUN > docs/results/damaged-checkpoints.md

The run's own files aren't touched: a copy is. The table (Markdown) has a row for each kind of
file of the newest checkpoint, with the number of cases in which the damage was found and the
older checkpoint taken, or, where only the newest is there, an error given.
"""

import argparse
import re
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

from result_page import print_head

from chomp.checkpoint.directory import CheckpointDirectory
from chomp.commands.checkpoints import open_run
from chomp.errors import ChompError, ResumeError


def flip(raw: bytes) -> bytes:
    changed = bytearray(raw)
    changed[len(raw) // 2] ^= 1
    return bytes(changed)


DAMAGE: dict[str, Callable[[bytes], bytes | None]] = {
    "deleted": lambda _: None,
    "last byte cut off": lambda raw: raw[:-1],
    "emptied": lambda _: b"",
    "one bit flipped": flip,
}


def damaged(path: Path, change: Callable[[bytes], bytes | None]) -> Iterator[None]:
    """Yield while the file is damaged; an empty one can only be deleted."""
    good = path.read_bytes()
    bad = change(good) if good else None
    path.unlink() if bad is None else path.write_bytes(bad)
    yield
    path.write_bytes(good)


def outcome(archive: CheckpointDirectory, older: int | None) -> bool:
    """Whether the damage is found, and the older checkpoint taken where there is one."""
    try:
        choice = archive.choose("latest")
    except ResumeError:
        return older is None
    return choice.step == older and len(choice.rejected) == 1


def main(run: str) -> None:
    source, _ = open_run(Path(run))
    newest, *older = reversed(source.good_steps())
    with tempfile.TemporaryDirectory() as folder:
        archives = []
        for name, steps in (("with", [newest, *older[:1]]), ("without", [newest])):
            archives.append(CheckpointDirectory(Path(folder) / name))
            for step in steps:
                shutil.copytree(source.path(step), archives[-1].path(step))
        found, cases = Counter[tuple[str, str]](), Counter[tuple[str, str]]()
        for archive in archives:
            falls_to = older[0] if older and archive is archives[0] else None
            for path in [p for p in archive.path(newest).rglob("*") if p.is_file()]:
                kind = re.sub("[0-9a-f]{32}", "*", str(path.relative_to(archive.path(newest))))
                for name, change in DAMAGE.items():
                    for _ in damaged(path, change):
                        cases[kind, name] += 1
                        found[kind, name] += outcome(archive, falls_to)
    print_head("Damaged checkpoints", "damaged-checkpoints")
    print("| file | " + " | ".join(DAMAGE) + " |")
    print("|---" * (1 + len(DAMAGE)) + "|")
    for kind in sorted({kind for kind, _ in cases}):
        cells = [f"{found[kind, name]} of {cases[kind, name]}" for name in DAMAGE]
        print(f"| `{kind}` | " + " | ".join(cells) + " |")
    print(f"\nfound: {found.total()} of {cases.total()} cases, each over all files of a kind,")
    print("with an older good checkpoint to fall back to and without one")
    sys.exit(int(found.total() != cases.total()))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("run", help="the run folder; it needs two good checkpoints")
    try:
        main(parser.parse_args().run)
    except ChompError as error:
        sys.exit(f"error: {error}")
