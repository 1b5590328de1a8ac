import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from chomp.data.batching import BatchSpec, draw, make_batch
from chomp.data.packing import PackedRow, Segment, TokenizedDocument
from chomp.data.row_stats import row_hashes
from chomp.types import IGNORE_LABEL, Batch

EOS = 2
rows_of_lengths = st.lists(
    st.lists(st.integers(0, 4), min_size=1, max_size=4).filter(any), min_size=1, max_size=6
)


def rows_with(sizes: list[list[int]]) -> list[PackedRow]:
    rng = np.random.default_rng(0)
    keys = iter(range(100))
    return [
        [
            Segment(tokens, TokenizedDocument(tokens, next(keys), True, False, 2), starts=True)
            for tokens in (rng.integers(0, 6, size, dtype=np.int32) for size in row)
        ]
        for row in sizes
    ]


@given(rows_of_lengths, st.booleans(), st.booleans())
@settings(max_examples=150, deadline=None)
def test_layout_labels_and_counts_against_a_plain_recount(sizes, mask_boundaries, train_on_eos):
    time = 16
    rows = rows_with(sizes)
    layout = BatchSpec(2, 3, time, 5, EOS, mask_boundaries, train_on_eos)
    batch, stats, _ = draw(rows, layout)
    targets = 0
    for number, (a, b) in enumerate(np.ndindex(2, 3)):
        row = [piece.tokens for piece in rows[number]] if number < len(rows) else []
        row = [tokens for tokens in row if len(tokens)]
        ids = [int(token) for tokens in row for token in tokens]
        segments = [i + 1 for i, tokens in enumerate(row) for _ in tokens]
        first = [j == 0 for tokens in row for j in range(len(tokens))]
        padding = time - len(ids)
        assert batch.input_ids[a, b].tolist() == ids + [5] * padding
        assert batch.segment_ids[a, b].tolist() == segments + [0] * padding
        assert batch.attention_mask[a, b].tolist() == [True] * len(ids) + [False] * padding
        for i in range(time):
            label = int(batch.labels[a, b, i])
            if i >= len(ids):
                assert label == IGNORE_LABEL
                continue
            masked = (mask_boundaries and first[i]) or (not train_on_eos and ids[i] == EOS)
            assert label == (IGNORE_LABEL if masked else ids[i])
            targets += i > 0 and not masked
    assert stats.targets == targets
    assert stats.tokens == sum(map(sum, sizes))
    good = sum(size > 0 for row in sizes for size in row)
    everything = sum(len(row) for row in sizes)
    assert (stats.documents, stats.skipped) == (good, 2 * everything)
    assert len(stats.keys) == good


def test_shapes_and_dtypes_are_always_the_same():
    for sizes in ([[3]], [[1, 2], [4]]):
        batch = make_batch(rows_with(sizes), BatchSpec(2, 3, 16, 0, EOS, True, True))
        assert [x.shape for x in batch] == [(2, 3, 16)] * 4
        assert [str(x.dtype) for x in batch] == ["int32", "int32", "int32", "bool"]


def test_padding_with_the_eos_id_is_told_apart_by_the_mask():
    batch = make_batch(rows_with([[3]]), BatchSpec(1, 1, 8, EOS, EOS, True, True))
    assert batch.labels[0, 0, 3:].tolist() == [IGNORE_LABEL] * 5
    assert not batch.attention_mask[0, 0, 3:].any()


def test_a_rows_hash_is_of_its_tokens_labels_and_segments_alone():
    batch = make_batch(rows_with([[3, 4], [5]]), BatchSpec(2, 3, 16, 0, EOS, True, True))
    before = row_hashes(batch)
    assert len(before) == 6 and len(set(before)) == 3  # four rows of padding
    seen = set(before)
    for name in ("input_ids", "labels", "segment_ids"):
        for place, row in (((0, 0, 0), 0), ((1, 2, 15), 5)):
            changed = np.array(getattr(batch, name))
            changed[place] += 1
            after = row_hashes(batch._replace(**{name: changed}))
            assert [i for i in range(6) if after[i] != before[i]] == [row]
            seen.add(after[row])
    seen.add(row_hashes(batch._replace(labels=batch.segment_ids, segment_ids=batch.labels))[0])
    assert len(seen) == 10
    same = Batch(*(np.asfortranarray(array) for array in batch))
    same = same._replace(
        attention_mask=~batch.attention_mask, labels=np.asarray(same.labels, np.int64)
    )
    assert row_hashes(same) == before


def test_a_batchs_hash_is_of_its_rows_in_their_places():
    layout = BatchSpec(1, 3, 16, 0, EOS, True, True)
    one, two = rows_with([[3, 4], [5]])
    cases = [[one, two], [two, one], [one, [], two], [one], []]
    assert len({draw(rows, layout).stats.hash for rows in cases}) == 5
    assert draw([one, two, []], layout).stats == draw([one, two], layout).stats


def test_pieces_of_one_document_are_one_key_and_one_document():
    document = TokenizedDocument(np.arange(12, dtype=np.int32), 7, skipped=1)
    rows = [
        [Segment(document.tokens[:8], document, starts=True)],
        [Segment(document.tokens[8:], document, starts=False)],
    ]
    stats = draw(rows, BatchSpec(1, 2, 8, 0, EOS, True, True)).stats
    assert (stats.documents, stats.skipped, stats.keys) == (1, 1, (7,))
