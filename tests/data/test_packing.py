import itertools
import math

import grain.python as grain
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from chomp.data.packing import (
    MIN_ROWS,
    ROUND_BYTES,
    BinRows,
    PackedRow,
    Segment,
    SequentialRows,
    TokenizedDocument,
    cut,
    pack_best_fit,
)

lengths = st.lists(st.integers(0, 70), min_size=1, max_size=60)


class BlockIterator(grain.DatasetIterator):
    """Blocks of a list."""

    def __init__(self, blocks):
        super().__init__()
        self.blocks, self.at = blocks, 0

    def __next__(self):
        if self.at == len(self.blocks):
            raise StopIteration
        self.at += 1
        return self.blocks[self.at - 1]

    def next_epoch(self):
        return self.blocks[self.at][0].epoch if self.at < len(self.blocks) else math.inf

    def get_state(self):
        return {"at": self.at}

    def set_state(self, state):
        self.at = state["at"]


class BlockList(grain.IterDataset):
    def __init__(self, blocks):
        super().__init__()
        self.blocks = blocks

    def __iter__(self):
        return BlockIterator(self.blocks)


def documents_of(sizes: list[int]) -> list[TokenizedDocument]:
    ends = itertools.accumulate(sizes)
    return [
        TokenizedDocument(np.arange(end - size, end, dtype=np.int32), key=i, skipped=i)
        for i, (size, end) in enumerate(zip(sizes, ends, strict=True))
    ]


def blocks_of(sizes: list[int], block: int) -> grain.IterDataset:
    documents = documents_of(sizes)
    return BlockList([documents[i : i + block] for i in range(0, len(documents), block)])


def tokens_of(rows: list[PackedRow]) -> list[int]:
    return [int(token) for row in rows for piece in row for token in piece.tokens]


def starts_of(rows: list[PackedRow]) -> list[int]:
    return [p.document.key for row in rows for p in row if p.starts and len(p.tokens)]


@given(lengths, st.integers(1, 32), st.integers(1, 9))
@settings(max_examples=100, deadline=None)
def test_sequential_keeps_every_token_in_order(sizes, time, block):
    rows = list(SequentialRows(blocks_of(sizes, block), time=time))
    assert tokens_of(rows) == list(range(sum(sizes)))
    assert all(sum(len(piece.tokens) for piece in row) == time for row in rows[:-1])
    assert starts_of(rows) == [i for i, size in enumerate(sizes) if size]


@given(lengths, st.integers(1, 32), st.integers(1, 9), st.integers(0, 30))
@settings(max_examples=100, deadline=None)
def test_sequential_goes_on_exactly_from_any_row(sizes, time, block, stop):
    iterator = SequentialRows(blocks_of(sizes, block), time=time).__iter__()
    before = list(itertools.islice(iterator, stop))
    again = SequentialRows(blocks_of(sizes, block), time=time).__iter__()
    again.set_state(iterator.get_state())
    assert tokens_of(before) + tokens_of(list(again)) == list(range(sum(sizes)))


@given(
    lengths,
    st.integers(1, 32),
    st.one_of(st.none(), st.integers(1, 4)),
    st.integers(1, 40),
    st.one_of(st.none(), st.integers(0, 9)),
)
@settings(max_examples=150, deadline=None)
def test_bins_hold_every_token_once_and_pieces_whole(sizes, time, most, buffer, seed):
    rows = list(BinRows(blocks_of(sizes, 7), time=time, buffer=buffer, max_pieces=most, seed=seed))
    assert sorted(tokens_of(rows)) == list(range(sum(sizes)))
    assert sorted(starts_of(rows)) == [i for i, size in enumerate(sizes) if size]
    for row in rows:
        pieces = [piece for piece in row if len(piece.tokens)]
        assert 1 <= len(pieces) <= (most or len(pieces))
        assert sum(len(piece.tokens) for piece in pieces) <= time
        for piece in pieces:
            # Whole, or a full row, or what is left of a longer document after full rows.
            size = len(piece.document.tokens)
            assert len(piece.tokens) in (size, time, size % time)


@given(lengths, st.integers(1, 32), st.integers(0, 30))
@settings(max_examples=60, deadline=None)
def test_bins_go_on_exactly_from_any_row(sizes, time, stop):
    def rows() -> grain.DatasetIterator:
        packed = BinRows(blocks_of(sizes, 5), time=time, buffer=9, max_pieces=None, seed=3)
        return packed.__iter__()

    iterator = rows()
    for _ in itertools.islice(iterator, stop):
        pass
    state = iterator.get_state()
    again = rows()
    again.set_state(state)
    assert tokens_of(list(again)) == tokens_of(list(iterator))


def test_counts_without_tokens_come_with_the_first_row():
    pieces = cut(documents_of([0, 5, 0, 9]), 8)
    rows = pack_best_fit(pieces, 8, 1)
    assert {p.document.key for p in rows[0] if p.starts} >= {0, 2}
    assert sorted(p.document.key for row in rows for p in row if p.starts) == [0, 1, 2, 3]
    assert sum(p.document.skipped for row in rows for p in row if p.starts) == 6


def test_best_fit_takes_the_tightest_room():
    def piece(length: int, key: int) -> Segment:
        return Segment(
            np.zeros(length, np.int32), TokenizedDocument(np.zeros(length, np.int32), key), True
        )

    pieces = [piece(length, key) for key, length in enumerate([5, 7, 3, 5])]
    rows = pack_best_fit(pieces, 10, None)
    assert [[p.document.key for p in row] for row in rows] == [[0, 3], [1, 2]]


def test_few_rows_are_half_empty_also_when_documents_are_short():
    sizes = np.random.default_rng(0).integers(1, 60, 20_000).tolist()
    rows = list(BinRows(blocks_of(sizes, 64), time=512, buffer=8, max_pieces=None, seed=0))
    assert sum(sizes) / (512 * len(rows)) > 0.97


def epochs_of(sizes: list[int], epochs: int, block: int) -> grain.IterDataset:
    documents = [d._replace(epoch=e) for e in range(epochs) for d in documents_of(sizes)]
    return BlockList([documents[i : i + block] for i in range(0, len(documents), block)])


def rounds_of(iterator) -> list[list[tuple[int, int]]]:
    """(epoch, key) of the documents that start in each round, in the order of packing."""
    rounds: dict[int, list[tuple[int, int]]] = {}
    while True:
        number = iterator.get_state()["round"]
        row = next(iterator, None)
        if row is None:
            return [rounds[number] for number in sorted(rounds)]
        found = rounds.setdefault(number, [])
        found += [(p.document.epoch, p.document.key) for p in row if p.starts and len(p.tokens)]


@given(
    st.lists(st.integers(1, 70), min_size=1, max_size=9),
    st.integers(1, 9),
    st.integers(1, 4),
    st.integers(1, 30),
)
@settings(max_examples=100, deadline=None)
def test_a_round_ends_with_its_epoch_once_it_has_enough(sizes, epochs, block, stop):
    options = {"time": 1, "buffer": 1000, "max_pieces": None, "seed": 3}

    def iterator():
        return BinRows(epochs_of(sizes, epochs, block), **options).__iter__()

    rounds = rounds_of(iterator())
    every = sorted(itertools.chain.from_iterable(rounds))
    assert every == list(itertools.product(range(epochs), range(len(sizes))))
    enough = MIN_ROWS  # rows of one token
    for found, after in itertools.pairwise(rounds):
        assert sum(sizes[key] for _, key in found) >= enough
        first = min(found)
        last_whole = first[0] + bool(first[1])  # the first epoch that begins in it
        # Without the last block it wasn't at the end of that epoch yet, or hadn't enough.
        rest = sorted(found)[:-block]
        assert sum(sizes[k] for _, k in rest) < enough or max(rest)[0] <= last_whole
        assert after
    straight = list(iterator())
    first, again = iterator(), iterator()
    before = list(itertools.islice(first, stop))
    again.set_state(first.get_state())
    assert tokens_of(before + list(again)) == tokens_of(straight)


def test_a_round_ends_after_some_text_and_one_of_an_earlier_version_with_its_documents():
    many = [documents_of([100] * 200)]
    heavy = [[d._replace(bytes=ROUND_BYTES // 4)] for d in many[0]]
    whole_epochs = epochs_of([100], 200, 1)
    for documents in BlockList(heavy), whole_epochs:
        packed = BinRows(documents, time=1, buffer=50, max_pieces=None, seed=None)
        new, old = packed.__iter__(), packed.__iter__()
        state = new.get_state()
        assert state.pop("epoch") == -1
        old.set_state(state)
        assert {len(found) for found in rounds_of(old)} == {50}
        assert "epoch" not in old.get_state()
        assert {len(found) for found in rounds_of(new)} == {
            4 if documents is not whole_epochs else 1
        }
