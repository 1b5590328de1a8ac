"""Several processes are several `Data` here, each with its rows: what a lane reads is the same."""

import gzip
import itertools
import json
from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest

from chomp.config import DataConfig, TokenizerConfig
from chomp.data import (
    Data,
    combine,
    lanes_at_start,
    lanes_of,
    load_tokenizer,
    merge_states,
)
from chomp.data.token_cache.corpus import TokenShards
from chomp.data.token_cache.prepare import prepare
from chomp.errors import DataError
from chomp.types import Batch, LoadedBatch

BATCH = 4
SHAPE = (2, BATCH, 64)
BOTH = pytest.mark.parametrize("packing_mode", ["sequential", "bin"])


@pytest.fixture
def corpus(tmp_path, write_lines, paragraphs) -> Callable[[str], dict]:
    """Return the keys of a config that reads a corpus of this kind."""
    lines = [{"text": text} for text in paragraphs[:200]]

    def make(kind: str) -> dict:
        match kind:
            case "files":  # as many as lanes at least
                paths = [write_lines(f"{i}.jsonl", *lines[i::7]) for i in range(7)]
                return {"backend": "files", "files": [str(path) for path in paths]}
            case "one file":
                broken = [b'{"text": "\xff"}', {"text": ""}, {"text": None}]
                path = write_lines("all.jsonl", *lines[:90], *broken, *lines[90:])
                return {"backend": "files", "files": [str(path)]}
            case "parquet":
                path = tmp_path / "all.parquet"
                table = pa.table({"text": [line["text"] for line in lines]})
                pa.parquet.write_table(table, path, row_group_size=30)
                return {"backend": "files", "files": [str(path)]}
            case "library":
                return {"backend": "builtin"}
            case "mixture":
                kinds = {"files": ("files", 0.5), "parquet": ("files", 0.2)}
                kinds["tokens"] = ("tokens_dir", 0.3)
                entries = [
                    {"name": name, "weight": weight, key: make(name)[key]}
                    for name, (key, weight) in kinds.items()
                ]
                weights = {"files": 0.1, "parquet": 0.9, "tokens": 0}
                stages = [{"from_step": 8, "weights": weights}]
                return {"sources": entries, "stages": stages}
            case _:
                texts = [*paragraphs[:200], "", ""]
                config = DataConfig(backend="local_text", local_text=texts, max_eval_samples=10)
                prepare(
                    *(config, load_tokenizer(TokenizerConfig()), tmp_path / "tokens"),
                    evaluate=True,
                    shard_tokens=3000,
                    progress=lambda done: None,
                )
                return {"backend": "tokens", "tokens_dir": str(tmp_path / "tokens")}

    return make


@pytest.fixture
def coordinator(opened) -> Callable[..., list[Data]]:
    """Open the data of each of some processes."""

    def open_(processes: int, **keys) -> list[Data]:
        share = BATCH // processes
        cuts = [range(i * share, (i + 1) * share) for i in range(processes)]
        return [opened(SHAPE, rows=rows, **keys) for rows in cuts]

    return open_


def draw(processes: Sequence[Data]) -> LoadedBatch | None:
    """Draw a batch as processes do: agree first, then each its own; None at the end."""
    peeked = [data.train.peek() for data in processes]
    if all(rows is None for rows in peeked):
        return None
    drawn = [
        data.padding() if rows is None else next(data.train)
        for data, rows in zip(processes, peeked, strict=True)
    ]
    for of_one, rows in zip(drawn, peeked, strict=True):
        assert of_one.rows == (rows or ())
        assert of_one.stats == combine([of_one.rows])
    batch = Batch(*(np.concatenate(arrays, 1) for arrays in zip(*(d.batch for d in drawn))))  # noqa: B905
    told = [json.loads(json.dumps(of_one.rows)) for of_one in drawn]
    return LoadedBatch(batch, combine(told))


def take(processes: Sequence[Data], count: int) -> list[LoadedBatch]:
    found = [draw(processes) for _ in range(count)]
    return [drawn for drawn in found if drawn]


def whole_state(processes: Sequence[Data]) -> dict:
    return merge_states([json.loads(json.dumps(data.get_state())) for data in processes])


def tokens_of(drawn: Sequence[LoadedBatch]) -> list[int]:
    return np.concatenate([d.batch.input_ids[d.batch.attention_mask] for d in drawn]).tolist()


@pytest.mark.parametrize(
    ("kind", "lanes"),
    [
        *itertools.product(["files", "one file", "parquet", "tokens"], [1, 2, 4]),
        ("mixture", 2),
        ("mixture", 4),
        ("library", 2),
    ],
)
@BOTH
def test_any_number_of_processes_draws_the_same_and_goes_on_with_anothers_state(
    coordinator, corpus, assert_same, kind, packing_mode, lanes
):
    keys = {
        **corpus(kind),
        "packing_mode": packing_mode,
        "packing_buffer_docs": 8,
        "shuffle_buffer_size": 23,
        "max_eval_samples": 10,
        "on_error": "skip",
        "evaluate": True,
        "of_lanes": lanes,
    }
    [alone] = coordinator(1, **keys)
    expected = list(itertools.islice(alone.train, 5))
    middle = json.loads(json.dumps(alone.get_state()))
    more = 10 if kind == "library" else 70
    expected += itertools.islice(alone.train, more)
    assert lanes_of(middle) == lanes
    if kind != "library":
        assert max(drawn.stats.epoch for drawn in expected) > 0
    [one], two, four = (coordinator(count, **keys) for count in (1, 2, 4))
    for before, after in (([one], two), (two, four), (four, [one])):
        for data in before:
            data.set_state(coordinator(1, **keys)[0].get_state())
        assert_same(take(before, 5), [d._replace(rows=()) for d in expected[:5]])
        assert whole_state(before) == middle
        for data in after:
            data.set_state(whole_state(before))
        assert_same(take(after, more), [d._replace(rows=()) for d in expected[5:]])
        assert whole_state(after) == json.loads(json.dumps(alone.get_state()))
    # The evaluation sets are the same too.
    name = list(alone.evaluation.sources)[-1]
    whole = list(alone.evaluation.sources[name].batches())
    for processes in (two, four):
        parts = [list(data.evaluation.sources[name].batches()) for data in processes]
        assert {data.evaluation.targets for data in processes} == {alone.evaluation.targets}
        for number, batch in enumerate(whole):
            for i, array in enumerate(batch):
                got = np.concatenate([part[number][i] for part in parts], 1)
                np.testing.assert_array_equal(got, array)


@pytest.mark.parametrize("kind", ["files", "one file", "tokens"])
@BOTH
@pytest.mark.parametrize("processes", [1, 2, 4])
def test_one_epoch_holds_every_token_once_whichever_lane_ends_first(
    coordinator, corpus, paragraphs, kind, packing_mode, processes
):
    """Also a process whose lanes have all ended goes on, with padding, while others have rows."""
    keys = {**corpus(kind), "packing_mode": packing_mode, "repeat": False}
    keys["of_lanes"] = 2 if kind == "one file" else 4
    if kind == "files":
        with open(keys["files"][2], "a") as file:  # that lane is the last
            file.writelines(json.dumps({"text": text}) + "\n" for text in paragraphs[200:300])
    keys |= {"on_error": "skip", "evaluate": kind == "tokens", "max_eval_samples": 10}
    several = coordinator(processes, **keys)
    drawn = take(several, 500)
    assert draw(several) is None
    texts = Counter("".join(paragraphs[: 300 if kind == "files" else 200]).encode())
    if kind == "one file":
        texts.update("\ufffd".encode())
    elif kind == "tokens":  # ten are kept apart
        shards = several[0].evaluation.sources[""]._encoded
        texts.subtract(itertools.chain.from_iterable(d.tokens.tolist() for d in shards))
    assert Counter(tokens_of(drawn)) == +texts
    assert {d.batch.input_ids.shape for d in drawn} == {SHAPE}
    keys_seen = [key for d in drawn for key in dict.fromkeys(d.stats.keys)]
    assert sum(d.stats.documents for d in drawn) == len(set(keys_seen))
    if kind == "tokens":
        assert sum(d.stats.skipped for d in drawn) in (0, 2)  # behind the last row they are in none
    ended = [not d.batch.attention_mask[:, row].any() for d in drawn for row in range(BATCH)]
    assert any(ended) or kind != "files"
    state = whole_state(several)
    again = coordinator(4, **keys)
    for data in again:
        data.set_state(state)
    assert draw(again) is None


def test_a_lane_reads_every_nth_file_or_every_nth_row(opened, corpus):
    def keys_of(kind, lane):
        rows = range(lane, lane + 1)
        data = opened(SHAPE, rows=rows, of_lanes=4, repeat=False, on_error="skip", **corpus(kind))
        return {key for drawn in data.train for key in drawn.stats.keys}

    for lane in range(4):
        assert {key >> 32 for key in keys_of("files", lane)} == set(range(lane, 7, 4))
        rows = {key & 0xFFFFFFFF for key in keys_of("one file", lane)}
        assert rows == {row for row in range(lane, 203, 4) if row not in (91, 92)}


def test_neighbours_in_a_file_go_different_ways_in_their_lanes(opened, corpus):
    keys = corpus("parquet")
    data = [opened(SHAPE, rows=range(r, r + 1), of_lanes=4, **keys) for r in (0, 1)]
    drawn = [list(itertools.islice(one.train, 30)) for one in data]
    orders = [list(dict.fromkeys(key for d in of for key in d.stats.keys)) for of in drawn]
    assert min(map(len, orders)) > 20
    assert [key // 4 for key in orders[0][:20]] != [key // 4 for key in orders[1][:20]]


@pytest.mark.parametrize("kind", ["files", "one file", "tokens"])
def test_held_out_documents_are_in_no_lane(coordinator, opened, corpus, kind):
    """The same as those of one lane."""
    keys = {**corpus(kind), "max_eval_samples": 10, "evaluate": True, "on_error": "skip"}
    held = opened(SHAPE, **keys).evaluation.sources[""]
    several = coordinator(4, of_lanes=4, repeat=False, **keys)
    assert [d.key for d in several[1].evaluation.sources[""]._encoded] == [
        d.key for d in held._encoded
    ]
    seen = {key for d in take(several, 500) for key in d.stats.keys}
    if kind != "tokens":
        assert seen.isdisjoint(d.key for d in held._encoded)
    assert len(seen) == 190 + (kind == "one file")
    samples = [data.samples.next_document() for data in several]
    assert len(set(samples)) == 1


@BOTH
def test_a_process_reads_no_prepared_token_of_others(
    opened, corpus, packing_mode, monkeypatch: pytest.MonkeyPatch
):
    class Watched:
        """Tokens that tell when they are read; packing may only measure and cut them."""

        def __init__(self, tokens, places):
            self._tokens, self._places = tokens, places

        def __len__(self):
            return len(self._tokens)

        def __getitem__(self, cut: slice):
            return Watched(self._tokens[cut], self._places[cut])

        def __array__(self, dtype=None, copy=None):
            read.update(self._places)
            return np.asarray(self._tokens, dtype)

    document = TokenShards.document

    def watched(self, number, epoch=0):
        found = document(self, number, epoch)
        places = [(number, at) for at in range(len(found.tokens))]
        return found._replace(tokens=Watched(found.tokens, places))

    monkeypatch.setattr(TokenShards, "document", watched)
    keys = {**corpus("tokens"), "packing_mode": packing_mode, "packing_buffer_docs": 8}
    reads, tokens = [], []
    for rows in (range(0, 1), range(1, 4)):
        read: Counter = Counter()
        data = opened(SHAPE, rows=rows, repeat=False, **keys)
        tokens.append(sum(drawn.stats.tokens for drawn in data.train))
        reads.append(read)
    assert [read.total() for read in reads] == tokens
    assert reads[0].keys().isdisjoint(reads[1])
    assert set((reads[0] + reads[1]).values()) == {1}


@pytest.mark.parametrize("on_error", ["stop", "skip"])
def test_a_file_that_breaks_off_is_one_fault_and_stops_every_lane(
    coordinator, write_lines, library_texts, on_error
):
    path = write_lines("a.jsonl", *({"text": text} for text in library_texts))
    broken = path.with_suffix(".jsonl.gz")
    packed = gzip.compress(path.read_bytes())
    broken.write_bytes(packed[: len(packed) * 3 // 4])
    good = write_lines("b.jsonl", *({"text": text} for text in library_texts[:8]))
    keys = {"backend": "files", "files": [str(broken), str(good)], "shuffle": False}
    keys |= {"tokenizer_config": TokenizerConfig(max_doc_tokens=50)}
    several = coordinator(4, of_lanes=4, on_error=on_error, repeat=False, **keys)
    if on_error == "skip":
        drawn = take(several, 500)
        assert sum(d.stats.skipped for d in drawn) == 1
        assert 20 < sum(d.stats.documents for d in drawn) < len(library_texts)
        return
    for data in several:
        with pytest.raises(DataError, match=r"a\.jsonl\.gz"):
            list(data.train)


def test_a_broken_line_is_told_once(coordinator, write_lines, paragraphs):
    lines: list[object] = [{"text": text} for text in paragraphs[:40]]
    lines[13:13] = [b"{broken", {"text": ""}]
    path = write_lines("broken.jsonl", *lines)
    keys = {"backend": "files", "files": [str(path)], "shuffle": False}
    several = coordinator(4, of_lanes=4, on_error="skip", repeat=False, **keys)
    assert sum(drawn.stats.skipped for drawn in take(several, 100)) == 2
    raised = []
    for number, data in enumerate(coordinator(4, of_lanes=4, repeat=False, **keys)):
        try:
            list(data.train)
        except DataError:
            raised.append(number)
    assert raised == [13 % 4]


def test_lanes_without_documents_are_refused(opened, corpus):
    def first(**keys):
        return next(opened(SHAPE, backend="local_text", of_lanes=4, **keys).train)

    with pytest.raises(DataError, match=r"data\.lanes: lane 3 of 4 finds no text"):
        first(local_text=["one", "two", "three"])
    with pytest.raises(DataError, match=r"data\.lanes: all documents of a lane are held out"):
        first(
            local_text=[2 * c for c in "abcdefgh"], shuffle=False, max_eval_samples=7, evaluate=True
        )
    with pytest.raises(DataError, match=r"data\.lanes: must divide train\.batch_size"):
        opened((1, 3, 64), local_text=["some text"], of_lanes=2)
    prepared = corpus("tokens")
    with pytest.raises(DataError, match=r"data\.lanes: must be at most the documents in .*\b190\b"):
        opened((1, 256, 8), of_lanes=256, **prepared)


def test_states_that_do_not_fit_together_are_refused(coordinator, corpus):
    keys = {**corpus("files"), "of_lanes": 2}
    four = coordinator(4, **keys)
    assert whole_state(four) == coordinator(1, **keys)[0].get_state()
    with pytest.raises(ValueError, match="lane 1"):
        whole_state(four[:2])
    next(four[0].train)
    with pytest.raises(ValueError, match="lane 0"):
        whole_state(four)
    [other] = coordinator(1, **corpus("files"), of_lanes=4)
    with pytest.raises(DataError, match=r"data\.lanes: the run began with 2 \(got 4\)"):
        other.set_state(coordinator(1, **keys)[0].get_state())


def test_the_number_of_lanes_at_the_first_start():
    assert lanes_at_start(DataConfig(), 8, processes=4) == 4
    assert lanes_at_start(DataConfig(), 8, processes=3) == 1
    assert lanes_at_start(DataConfig(), 8, processes=12) == 4
    assert lanes_at_start(DataConfig(lanes=2), 8, processes=4) == 2
    tokens = DataConfig(backend="tokens", tokens_dir="tokens")
    assert lanes_at_start(tokens, 8, processes=4) == 1
    assert lanes_at_start(tokens.model_copy(update={"lanes": 2}), 8, processes=4) == 2
