"""Streams a dataset from a server that misbehaves, and compares every batch with a quiet read.

    python scripts/http_faults.py                 # prints tables in Markdown
    python scripts/http_faults.py --epochs 1 --formats parquet

The server (tests/data/fake_hub.py) speaks the Hugging Face Hub's protocol on this machine, so
that names, listings and files come in the way that they come from the hub itself. Ends with 1 if
a batch differs.
"""

import argparse
import gzip
import hashlib
import itertools
import json
import logging
import os
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "data"))
from fake_hub import FAULTS, FakeHub

FORMATS = ("parquet", "jsonl", "jsonl.gz", "jsonl.zst")
TIMEOUT = 0.3


def documents(count: int) -> list[str]:
    """Real text of very uneven length: parts of the standard library's modules."""
    folder = Path(os.__file__).parent
    sources = (path.read_text("utf-8", "replace") for path in sorted(folder.glob("*.py")))
    parts = (part for source in sources for part in source.split("\n\n\n") if part.strip())
    return list(itertools.islice(parts, count))


def write_dataset(folder: Path, texts: Sequence[str], kind: str, shards: int) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq
    import zstandard

    folder.mkdir()
    for i in range(shards):
        part = texts[i::shards]
        path = folder / f"train-{i:05d}-of-{shards:05d}.{kind}"
        if kind == "parquet":
            table = pa.table({"id": range(len(part)), "text": part})
            pq.write_table(table, path, row_group_size=50)
            continue
        lines = "".join(json.dumps({"id": j, "text": t}) + "\n" for j, t in enumerate(part))
        pack = {"jsonl": bytes, "jsonl.gz": gzip.compress, "jsonl.zst": zstandard.compress}[kind]
        path.write_bytes(pack(lines.encode()))


def digests(dataset: str, wanted: int | None, documents_wanted: int) -> list[str]:
    """Return a digest of each batch and its counts; half way the stream is resumed anew."""
    import numpy as np

    from chomp.config import DataConfig
    from chomp.data import BatchSpec, load_tokenizer, open_data

    config = DataConfig(
        backend="hf",
        hf_dataset=dataset,
        hf_name=None,
        shuffle_buffer_size=100,
        packing_mode="bin",
        max_retries=12,
        retry_delay_sec=0.002,
        timeout_sec=TIMEOUT,
    )
    layout = BatchSpec.of(config, (2, 4, 512), pad_id=0, eos_id=2)
    found: list[str] = []
    state, seen = None, 0
    for last in (False, True):
        data = open_data(config, load_tokenizer(config.tokenizer), layout, evaluate=False)
        if state is not None:
            data.set_state(json.loads(state))
        for drawn in data.train:
            digest = hashlib.sha256(repr(drawn.stats).encode())
            for array in drawn.batch:
                digest.update(np.ascontiguousarray(array).tobytes())
            found.append(digest.hexdigest())
            seen += drawn.stats.documents
            if seen >= documents_wanted / 2 if not last else len(found) == wanted:
                break
            if wanted is None and seen >= documents_wanted:
                break
        state = json.dumps(data.get_state())
        data.close()
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--formats", nargs="+", default=FORMATS, choices=FORMATS)
    parser.add_argument("--documents", type=int, default=1000)
    parser.add_argument("--shards", type=int, default=4)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--share", type=float, default=0.3, help="of the requests that go wrong")
    parser.add_argument("--range-bytes", type=int, default=16_384, help="asked for at once")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    texts = documents(options.documents)
    rows, kinds, same = [], Counter[str](), True
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        hub = FakeHub(folder, 0.0, seed=options.seed)
        os.environ |= {"HF_ENDPOINT": hub.url, "HF_HOME": str(folder / "home")}
        os.environ.pop("HF_HUB_OFFLINE", None)
        from chomp.data.sources import http_file, huggingface
        from chomp.data.sources.read_policy import RETRIES

        logging.disable(logging.WARNING)  # each retry is one
        # Many small requests in place of few large ones.
        http_file.RANGE_BYTES = huggingface.BUFFER_BYTES = options.range_bytes
        with hub:
            for number, kind in enumerate(options.formats):
                hub.folder, hub.sha = folder / kind, f"{number}" * 40
                write_dataset(hub.folder, texts, kind, options.shards)
                documents_wanted = options.epochs * len(texts)
                quiet = digests(str(hub.folder), None, documents_wanted)
                hub.fault_share, hub.faults, hub.requests = options.share, [], 0
                before, begin = RETRIES.count, time.perf_counter()
                faulty = digests("me/data", len(quiet), documents_wanted)
                seconds = time.perf_counter() - begin
                hub.fault_share = 0.0
                kinds += Counter(hub.faults)
                same &= quiet == faulty
                equal = sum(a == b for a, b in zip(quiet, faulty, strict=True))
                rows.append(
                    f"| {kind} | {hub.requests:,} | {len(hub.faults):,} | "
                    f"{RETRIES.count - before:,} | {equal} of {len(quiet)} | {seconds:.0f} |"
                )
    print(f"{len(texts)} documents, {options.shards} shards, {options.epochs} epochs.\n")
    print("| files | requests | faults | retries | equal batches | seconds |")
    print("|---|---|---|---|---|---|")
    print("\n".join(rows))
    print("\n| fault | times |\n|---|---|")
    print("\n".join(f"| {meaning} | {kinds[kind]} |" for kind, meaning in FAULTS.items()))
    return 0 if same else 1


if __name__ == "__main__":
    sys.exit(main())
