"""How much is read and encoded before the first batch, whatever the corpus."""

import json

import pytest

from chomp.config import TokenizerConfig
from chomp.data import load_tokenizer, tokenize


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
    if len(texts) == 1:
        assert tokenizer.bytes <= max(len(texts[0]), 4_000_000)


@pytest.mark.parametrize("packing", ["sequential", "bin"])
@pytest.mark.parametrize("sizes", [[3_000_000], [700_000] * 4, [2_500_000, 10, 900_000]])
def test_states_of_earlier_versions_go_on_exactly(opened, assert_same, monkeypatch, sizes, packing):
    """Their blocks went on beyond an epoch, and their rounds ended with their documents only."""
    keys = {"local_text": ["wxyz"[i] * size for i, size in enumerate(sizes)], "shuffle": False}
    keys |= {"packing_mode": packing, "packing_buffer_docs": 4}
    draws = [0, 3, 900, 1500]

    def earlier(state):
        lane = state["train"]["lanes"][0]
        lane.pop("epoch", None)
        return state

    with monkeypatch.context() as old:
        old.setattr(tokenize, "EPOCH_CHARACTERS", 1 << 60)
        data = opened((1, 4, 512), **keys)
        data.set_state(earlier(data.get_state()))
        drawn, states = [], []
        for number in range(draws[-1] + 60):
            if number in draws:
                states.append(json.loads(json.dumps(earlier(data.get_state()))))
            drawn.append(next(data.train))
    for number, state in zip(draws, states, strict=True):
        again = opened((1, 4, 512), **keys)
        again.set_state(state)
        assert_same([next(again.train) for _ in range(60)], drawn[number : number + 60])
