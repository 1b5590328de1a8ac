import glob
import json
import os
import sysconfig
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from chomp.config import DataConfig, TokenizerConfig
from chomp.data import BatchSpec, Data, load_tokenizer, open_data
from chomp.data.sources.read_policy import ReadPolicy
from chomp.system.console import LOG
from chomp.types import LoadedBatch

Open = Callable[..., Data]


@pytest.fixture
def opened() -> Iterator[Open]:
    """Open data as a run does, with the byte tokenizer; closed at the end of the test."""
    alive: list[Data] = []

    def open_(
        shape=(2, 2, 64),
        *,
        tokenizer=None,
        tokenizer_config=None,
        evaluate=False,
        rows: range | None = None,
        of_lanes: int | None = None,
        console=LOG,
        **keys,
    ) -> Data:
        tokens = tokenizer_config or TokenizerConfig()
        common = {"backend": "local_text", "packing_mode": "sequential", "tokenizer": tokens}
        config = DataConfig(**common | keys)
        data = open_data(
            config,
            tokenizer or load_tokenizer(config.tokenizer),
            BatchSpec.of(config, shape, pad_id=0, eos_id=2),
            evaluate=evaluate,
            lanes=of_lanes,
            rows=rows,
            console=console,
        )
        alive.append(data)
        return data

    yield open_
    for data in alive:
        data.close()


@pytest.fixture(scope="session")
def library_texts() -> list[str]:
    """Real text: modules of the standard library, whatever their length."""
    paths = sorted(glob.glob(os.path.join(sysconfig.get_paths()["stdlib"], "*.py")))
    return [text for path in paths[:150] if (text := Path(path).read_text("utf-8", "replace"))]


@pytest.fixture(scope="session")
def paragraphs(library_texts: list[str]) -> list[str]:
    """Short documents: 500 pieces of real text of 1 to 300 characters."""
    rng = np.random.default_rng(0)
    text = "".join(library_texts)
    starts = rng.integers(0, len(text) - 300, 500)
    return [text[at : at + n] for at, n in zip(starts, rng.integers(1, 300, 500), strict=True)]


@pytest.fixture(scope="session")
def bpe_file(tmp_path_factory: pytest.TempPathFactory, library_texts: list[str]) -> Path:
    """A byte-level BPE of 8,192 tokens, trained here on the standard library."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=8192,
        special_tokens=["<pad>", "<s>", "</s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(library_texts[:100], trainer)
    path = tmp_path_factory.mktemp("bpe") / "tokenizer.json"
    tokenizer.save(str(path))
    return path


@pytest.fixture(scope="session")
def bpe_config(bpe_file: Path) -> TokenizerConfig:
    return TokenizerConfig(kind="hf", hf_name_or_path=str(bpe_file))


@pytest.fixture
def write_lines(tmp_path: Path) -> Callable[..., Path]:
    """Write a JSON lines file; a bytes item is a line as it is."""

    def write(name: str, *items: object) -> Path:
        lines = [i if isinstance(i, bytes) else json.dumps(i).encode() for i in items]
        path = tmp_path / name
        path.write_bytes(b"".join(line + b"\n" for line in lines))
        return path

    return write


@pytest.fixture
def assert_same() -> Callable[[list[LoadedBatch], list[LoadedBatch]], None]:
    """Compare batches and counts bit for bit."""

    def compare(left: list[LoadedBatch], right: list[LoadedBatch]) -> None:
        assert len(left) == len(right)
        for a, b in zip(left, right, strict=True):
            assert a.stats == b.stats
            for x, y in zip(a.batch, b.batch, strict=True):
                np.testing.assert_array_equal(x, y)
                assert x.dtype == y.dtype

    return compare


@pytest.fixture
def reading() -> ReadPolicy:
    return ReadPolicy("text", False, 2, 0.0, 5.0, threading.Event())
