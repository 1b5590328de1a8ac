"""How much is read and encoded before the first batch, whatever the corpus."""

import pytest

from chomp.config import TokenizerConfig
from chomp.data import load_tokenizer


class Counting:
    """The byte tokenizer, which counts the bytes that it encodes."""

    def __init__(self):
        self._inner = load_tokenizer(TokenizerConfig())
        self.bytes = 0

    def __getattr__(self, name):
        return getattr(self._inner, name)

    def encode_batch(self, texts):
        self.bytes += sum(map(len, texts))
        return self._inner.encode_batch(texts)


@pytest.mark.parametrize("packing", ["sequential", "bin"])
@pytest.mark.parametrize(
    "texts",
    [["x" * 4_000_000], ["x" * 300_000], ["x" * 2_000_000] * 3, ["x" * 1_000_000] * 100, ["xy"]],
    ids=["one", "one-small", "three", "hundred", "tiny"],
)
def test_the_first_batch_needs_little_of_any_corpus(opened, texts, packing):
    tokenizer = Counting()
    data = opened(
        (1, 4, 512),
        tokenizer=tokenizer,
        local_text=texts,
        packing_mode=packing,
        grain_prefetch=0,
    )
    next(data.train)
    # About ten megabytes of round and some blocks ahead: seconds, for any tokenizer of a library.
    assert tokenizer.bytes <= 24_000_000
