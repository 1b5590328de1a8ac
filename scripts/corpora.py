"""Fetches English text for experiments, from the package registries: pinned versions, same bytes.

python scripts/corpora.py --to corpora                  # all of them
python scripts/corpora.py gcide botocore --to corpora

Each becomes one file of documents, NAME.jsonl, with the key `text`. Needs apt-get and dpkg-deb
(gcide and linux-doc are Debian packages) or pip (botocore). A version that a mirror has replaced
by a newer one can't be fetched from it any more.
"""

import argparse
import gzip
import hashlib
import html
import json
import re
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

ENTRIES = 8_000
"""Bytes of a dictionary's entries that make a document, at least."""
DIGITS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
"""Of the numbers in a dictionary's index."""


class Corpus(NamedTuple):
    """A package, and how documents are found in it."""

    fetch: tuple[str, ...]
    sha256: str
    documents: Callable[[Path], Iterator[str]]


def gcide(package: Path) -> Iterator[str]:
    """The GNU Collaborative International Dictionary of English: neighbouring entries."""
    root = _unpacked(package) / "usr/share/dictd"
    text = gzip.decompress((root / "gcide.dict.dz").read_bytes())
    index = (line.split("\t") for line in (root / "gcide.index").read_text("utf-8").splitlines())
    begin = 0
    for start in [*sorted({_number(place) for _, place, _ in index}), len(text)]:
        if start - begin >= ENTRIES or start == len(text):
            yield text[begin:start].decode("utf-8", "replace")
            begin = start


def linux_doc(package: Path) -> Iterator[str]:
    """The Linux kernel's documentation: its files in reStructuredText."""
    (root,) = (_unpacked(package) / "usr/share/doc").glob("*/Documentation")
    for path in sorted((*root.rglob("*.rst"), *root.rglob("*.rst.gz"))):
        data = path.read_bytes()
        yield (gzip.decompress(data) if path.suffix == ".gz" else data).decode("utf-8", "replace")


def botocore(package: Path) -> Iterator[str]:
    """What the services of a cloud say about themselves: each description once, by service."""
    seen: set[str] = set()
    with zipfile.ZipFile(package) as files:
        for name in sorted(files.namelist()):
            if name.endswith("/service-2.json.gz"):
                service = json.loads(gzip.decompress(files.read(name)))
                new = [text for text in _descriptions(service) if text not in seen]
                seen.update(new)
                if new:
                    yield "\n\n".join(dict.fromkeys(new))


CORPORA = {
    "gcide": Corpus(
        ("apt-get", "download", "dict-gcide=0.48.5+nmu2"),
        "7b0af5cfde3cbdef5e9d6e78f92ec335ced7c2790f37a40f49bebc6f7347ac0f",
        gcide,
    ),
    "linux-doc": Corpus(
        ("apt-get", "download", "linux-doc-6.1=6.1.192-2"),
        "d1d1b5a602f0d439ecc39e713e044bf2df30d839fb4bf8a7b859ba3273c47993",
        linux_doc,
    ),
    "botocore": Corpus(
        (sys.executable, "-m", "pip", "download", "-q", "--no-deps", "botocore==1.44.8"),
        "76342a76c338701db80dcb8afe1c9bd079283d6fffbb9d881442abb02a215043",
        botocore,
    ),
}


def _unpacked(package: Path) -> Path:
    folder = package.parent / "unpacked"
    subprocess.run(["dpkg-deb", "-x", package, folder], check=True)
    return folder


def _number(digits: str) -> int:
    number = 0
    for digit in digits:
        number = 64 * number + DIGITS.index(digit)
    return number


def _descriptions(node: object) -> Iterator[str]:
    if isinstance(node, dict):
        for key, value in node.items():
            if key == "documentation" and isinstance(value, str):
                yield " ".join(html.unescape(re.sub(r"<[^>]*>", " ", value)).split())
            else:
                yield from _descriptions(value)
    elif isinstance(node, list):
        for value in node:
            yield from _descriptions(value)


def fetch(name: str, folder: Path) -> tuple[int, int]:
    """Write the documents of a corpus; returns their number and the bytes of their text."""
    corpus = CORPORA[name]
    with tempfile.TemporaryDirectory() as there:
        if subprocess.run(corpus.fetch, cwd=there, check=False).returncode:
            sys.exit(f"{name}: not fetched: {' '.join(corpus.fetch)}")
        (package,) = Path(there).iterdir()
        digest = hashlib.sha256(package.read_bytes()).hexdigest()
        if digest != corpus.sha256:
            sys.exit(f"{name}: {package.name} has the digest {digest}, not {corpus.sha256}")
        count = size = 0
        with (folder / f"{name}.jsonl").open("w", encoding="utf-8") as file:
            for text in corpus.documents(package):
                print(json.dumps({"text": text}), file=file)
                count, size = count + 1, size + len(text.encode())
    return count, size


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(CORPORA))
    parser.add_argument("--to", type=Path, required=True, help="folder")
    args = parser.parse_args()
    if unknown := set(args.names) - set(CORPORA):
        parser.error(f"no corpus {unknown.pop()!r}; there are {', '.join(CORPORA)}")
    args.to.mkdir(parents=True, exist_ok=True)
    for name in args.names or CORPORA:
        count, size = fetch(name, args.to)
        print(f"{args.to / name}.jsonl: {count:,} documents, {size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
