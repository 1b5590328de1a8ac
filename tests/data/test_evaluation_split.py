"""How many documents are evaluated on, for every size of a corpus; which corpora are refused."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from chomp.data import evaluation_split as module
from chomp.errors import DataError


def trained_on(data):
    return {key for drawn in data.train for key in drawn.stats.keys}


@pytest.mark.parametrize(
    "documents, asked, evaluated",
    [
        *((2, None, 1), (19, None, 1), (39, None, 1), (40, None, 2), (400, None, 20)),
        *((400, 399, 399), (400, 400, 20), (400, 10_000, 20), (2, 1, 1), (2, 2, 1)),
    ],
)
@pytest.mark.parametrize("shuffle", [False, True])
def test_every_corpus_has_an_evaluation_set(opened, documents, asked, evaluated, shuffle):
    texts = [f"document {number}" for number in range(documents)]
    keys = {"local_text": texts, "max_eval_samples": asked, "shuffle": shuffle}
    data = opened(**keys, evaluate=True, repeat=False)
    assert data.evaluation.documents == evaluated
    assert bool(data.notes) == (asked is not None and asked >= documents)
    assert data.evaluated[""] == "held out of training"
    held_out = {document.key for document in data.evaluation.sources[""]._encoded}
    assert trained_on(data) == set(range(documents)) - held_out


@pytest.mark.parametrize("shuffle_buffer_size", [10, 1000])
def test_the_same_documents_are_held_out_whatever_the_order(opened, shuffle_buffer_size):
    texts = [f"document {number}" for number in range(60)]
    keys = {"local_text": texts, "max_eval_samples": 5, "shuffle_buffer_size": shuffle_buffer_size}
    sets, orders = set(), set()
    for seed in range(3):
        data = opened(**keys, seed=seed, eval_seed=7, evaluate=True, repeat=False)
        held_out = [document.key for document in data.evaluation.sources[""]._encoded]
        order = [key for drawn in data.train for key in drawn.stats.keys]
        assert set(order) == set(range(60)) - set(held_out)
        sets.add(tuple(held_out))
        orders.add(tuple(order))
    assert len(sets) == 1 and len(orders) == 3
    other = opened(**keys, seed=7, evaluate=True).evaluation.sources[""]._encoded
    assert tuple(document.key for document in other) in sets


def test_the_default_counts_no_further_than_it_must(opened, monkeypatch):
    monkeypatch.setattr(module, "MOST", 5)
    monkeypatch.setattr(module, "MOST_COUNTED", 100)
    texts = [f"document {number}" for number in range(300)]
    assert opened(local_text=texts, evaluate=True).evaluation.documents == 5
    monkeypatch.setattr(module, "MOST_CHARACTERS", 500)
    assert opened(local_text=texts, evaluate=True).evaluation.documents == 2


@pytest.mark.parametrize("asked", [None, 20])
@pytest.mark.parametrize("packing_mode", ["sequential", "bin"])
@pytest.mark.parametrize("backend", ["local_text", "files", "jsonl"])
def test_of_a_single_document_the_last_part_is_evaluated_on(
    opened, assert_same, tmp_path, write_lines, asked, packing_mode, backend
):
    text = "".join(f"line {number}\n" for number in range(1000))
    (tmp_path / "book.txt").write_text(text)
    keys = {
        "local_text": {"local_text": [text]},
        "files": {"backend": "files", "files": [str(tmp_path / "book.txt")]},
        "jsonl": {
            "backend": "files",
            "files": [str(write_lines("a.jsonl", {"text": ""}, {"text": text}))],
        },
    }[backend]
    keys |= {"packing_mode": packing_mode, "max_eval_samples": asked, "evaluate": True}
    data = opened(**keys, repeat=False)
    size = data.evaluation.sources[""].bytes + 1
    last = text.encode()[-size:].decode()
    assert 0.04 < size / len(text) < 0.07
    assert last.startswith("line ")
    assert f"the last {size:,} characters" in data.evaluated[""]
    assert bool(data.notes) == (asked is not None)
    drawn = list(data.train)
    assert sum(d.stats.tokens for d in drawn) == len(text) - size
    assert data.samples.next_document() == text[:-size]
    # It goes on exactly, also over epochs.
    data = opened(**keys)
    expected = [next(data.train) for _ in range(60)]
    data = opened(**keys)
    got = [next(data.train) for _ in range(23)]
    again = opened(**keys)
    again.set_state(json.loads(json.dumps(data.get_state())))
    assert_same(got + [next(again.train) for _ in range(37)], expected)


def test_a_single_document_that_is_too_short_is_refused(opened):
    with pytest.raises(DataError, match="one document of 10 characters: too short"):
        opened(local_text=["0123456789"], evaluate=True)
    opened(local_text=["0123456789"])


def test_evaluation_documents_are_read_at_the_start(opened, write_lines):
    train = write_lines("train.jsonl", *({"text": f"some text {i}"} for i in range(50)))
    own = write_lines("val.jsonl", {"text": "good"}, b"{broken", {"text": "good"})
    keys = {"backend": "files", "files": [str(train)], "eval_files": [str(own)]}
    with pytest.raises(DataError, match=r"val\.jsonl, line 2: broken JSON"):
        opened(**keys, evaluate=True)
    assert opened(**keys, evaluate=True, on_error="skip").evaluation.documents == 2
    opened(**keys)  # without evaluation nobody reads them


@pytest.mark.parametrize("packing_mode", ["sequential", "bin"])
@pytest.mark.parametrize("repeat", [False, True])
@pytest.mark.parametrize(
    "keys",
    [
        {"local_text": list("abcdefghij") * 9},
        {"local_text": ["a\2"] * 50, "train_on_eos": False},
        {"local_text": list("ab"), "isolate_documents": True, "mask_boundary_loss": False},
    ],
)
def test_a_corpus_without_any_target_is_refused(opened, keys, packing_mode, repeat):
    data = opened(**keys, packing_mode=packing_mode, repeat=repeat)
    with pytest.raises(DataError, match="gives no token to predict"):
        next(data.train)


@pytest.mark.parametrize("packing_mode", ["sequential", "bin"])
def test_one_that_begins_without_targets_is_not(opened, assert_same, packing_mode):
    keys = {"local_text": [*"a" * 900, "some words"], "shuffle": False, "repeat": False}
    data = opened(**keys, packing_mode=packing_mode)
    drawn = list(data.train)
    assert drawn[0].stats.targets == 0 or packing_mode == "bin"
    assert sum(d.stats.tokens for d in drawn) == 910
    # What is left after a stop may well be without.
    half = opened(**keys | {"local_text": ["some words", *"a" * 900]}, packing_mode=packing_mode)
    first = next(half.train)
    again = opened(**keys | {"local_text": ["some words", *"a" * 900]}, packing_mode=packing_mode)
    again.set_state(half.get_state())
    assert first.stats.tokens + sum(d.stats.tokens for d in again.train) == 910


def test_a_split_that_is_not_there_is_replaced_by_held_out_documents(opened, tmp_path, paragraphs):
    folder = tmp_path / "set"
    folder.mkdir()
    pq.write_table(pa.table({"text": paragraphs[:60]}), folder / "train.parquet")
    keys = {"backend": "hf", "hf_name": None, "hf_dataset": str(folder), "max_eval_samples": 7}
    keys |= {"hf_eval_split": "validation"}
    data = opened(**keys, evaluate=True, repeat=False)
    assert (
        "no split 'validation'; there are: train; evaluating on documents held out"
        in (data.notes[0])
    )
    assert data.evaluation.documents == 7
    assert len(trained_on(data)) == 53
    assert opened(**keys, repeat=False).notes == []
    pq.write_table(pa.table({"text": paragraphs[60:70]}), folder / "validation.parquet")
    data = opened(**keys, evaluate=True, repeat=False)
    assert (data.notes, data.evaluated[""]) == ([], "of the split 'validation'")
    assert len(trained_on(data)) == 60


@pytest.mark.parametrize("form", ["plain", "split"])
def test_folders_of_save_to_disk(opened, tmp_path, paragraphs, form):
    import datasets

    whole = datasets.Dataset.from_dict({"text": paragraphs[:90], "n": range(90)})
    parts = whole.train_test_split(30, seed=0)
    if form == "plain":
        whole.save_to_disk(str(tmp_path / "saved"), num_shards=2)
    else:
        parts.save_to_disk(str(tmp_path / "saved"))
    keys = {"backend": "hf", "hf_name": None, "hf_dataset": str(tmp_path / "saved")}
    if form == "plain":
        data = opened(**keys, repeat=False, max_eval_samples=9, evaluate=True)
        assert (data.evaluation.documents, len(trained_on(data))) == (9, 81)
    else:
        data = opened(**keys, repeat=False, hf_eval_split="test", evaluate=True)
        assert (data.evaluation.documents, len(trained_on(data))) == (30, 60)
        assert data.evaluation.targets == sum(len(t.encode()) - 1 for t in parts["test"]["text"])
    with pytest.raises(DataError, match=r"no split 'dev'; there are: "):
        opened(**keys, hf_split="dev")
