"""How fast batches come: encoding alone, live tokenising, and prepared tokens, in turn.

    python scripts/data_speed.py                    # the standard library, an 8k BPE trained on it
    python scripts/data_speed.py --rounds 8 --json

Each line is tokens a second: the median of the rounds, with the least and the most, by the clock
and by the processor time of the whole process (which other programs disturb less).
"""

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from tokenizers import Tokenizer as BPE
from tokenizers import decoders, models, pre_tokenizers, trainers

from chomp.config import DataConfig, TokenizerConfig
from chomp.data import BatchSpec, Tokenizer, load_tokenizer, open_data
from chomp.data.sources.local import standard_library
from chomp.data.token_cache.prepare import prepare

SHAPE = 8, 4, 2048
"""Microbatches, rows of each, tokens of a row."""
Rates = tuple[float, float]
"""Tokens a second by the clock, and of processor time."""


def train_bpe(texts: list[str], path: str) -> None:
    tokenizer = BPE(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=8192,
        special_tokens=["<pad>", "<s>", "</s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.save(path)


def timed(work: Callable[[], int]) -> Rates:
    """Return tokens a second of work that returns its tokens."""
    begin = time.perf_counter(), time.process_time()
    tokens = work()
    return tokens / (time.perf_counter() - begin[0]), tokens / (time.process_time() - begin[1])


def batches(config: DataConfig, tokenizer: Tokenizer, tokens: int) -> Rates:
    """Draw batches until so many tokens have come; opening and the first batch don't count."""

    def draw() -> int:
        got = 0
        while got < tokens:
            got += next(data.train).stats.tokens
        return got

    layout = BatchSpec.of(config, SHAPE, pad_id=0, eos_id=2)
    data = open_data(config, tokenizer, layout, evaluate=False)
    try:
        next(data.train)
        return timed(draw)
    finally:
        data.close()


def encoding(texts: list[str], file: str) -> Rates:
    backend = BPE.from_file(file)
    return timed(lambda: sum(len(found.ids) for found in backend.encode_batch(texts)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--tokens", type=int, default=20_000_000, help="prepared tokens a round")
    parser.add_argument("--packing", choices=("bin", "sequential"), default="bin")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    shards = standard_library().shards
    texts = [row.text for shard in shards for _, row in shard.rows(0) if row.text]
    with tempfile.TemporaryDirectory() as folder:
        file = f"{folder}/tokenizer.json"
        train_bpe(texts, file)
        keys = {
            "tokenizer": TokenizerConfig(kind="hf", hf_name_or_path=file),
            "packing_mode": args.packing,
        }
        live = DataConfig(backend="builtin", **keys)
        tokenizer = load_tokenizer(live.tokenizer)
        out = Path(folder, "tokens")
        manifest = prepare(
            *(live, tokenizer, out),
            evaluate=False,
            shard_tokens=1 << 25,
            progress=lambda done: None,
        )
        prepared = DataConfig(backend="tokens", tokens_dir=str(out), **keys)
        total = sum(shard.tokens for shard in manifest.shards)
        ways = {
            "encode_batch": lambda: encoding(texts, file),
            "live": lambda: batches(live, tokenizer, total // 2),
            "prepared": lambda: batches(prepared, tokenizer, args.tokens),
        }
        for way in ways.values():
            way()
        turns = [{name: way() for name, way in ways.items()} for _ in range(args.rounds)]
        found = {name: [turn[name] for turn in turns] for name in ways}
    report(found, total, as_json=args.json)


def report(found: dict[str, list[Rates]], total: int, *, as_json: bool) -> None:
    if as_json:
        print(json.dumps(found))
        return
    print(f"corpus of {total:,} tokens; million tokens a second: median (least to most)")
    for name, rates in found.items():
        clock, processor = (shown([rate[i] for rate in rates]) for i in (0, 1))
        print(f"{name:14s} clock {clock:30s} processor {processor}")
    for base in ("live", "encode_batch"):
        pairs = zip(found["prepared"], found[base], strict=True)
        print(f"prepared / {base}: {statistics.median(a[0] / b[0] for a, b in pairs):.1f}")


def shown(rates: list[float]) -> str:
    median, least, most = (f(rates) / 1e6 for f in (statistics.median, min, max))
    return f"{median:7.2f} ({least:.2f} to {most:.2f})"


if __name__ == "__main__":
    main()
