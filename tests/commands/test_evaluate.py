import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

Values = dict[str, Any]


def scores(chomp: Any, *args: object) -> Values:
    done = chomp("eval", *args, "--json")
    assert done.code == 0, done.err
    assert done.out.count("\n") == 1
    return json.loads(done.out)


def test_a_runs_own_set_scores_as_its_row(chomp: Any, evaluated_run: Path, read_rows: Any):
    rows = {row["step"]: row for row in read_rows(evaluated_run / "metrics.jsonl")}
    for run, step in ((f"{evaluated_run}:2", 2), (evaluated_run, 4)):
        found, row = scores(chomp, run), rows[step]
        assert found["step"] == step
        assert found["loss"] == row["eval_loss"]
        assert found["perplexity"] == row["eval_perplexity"]
        assert found["bits_per_byte"] == row["eval_bits_per_byte"]
        assert found["targets"] == row["eval_targets"]
        assert found["documents"] == 3


def test_documents_one_by_one_add_up(chomp: Any, evaluated_run: Path):
    found = scores(chomp, evaluated_run, "--per-document")
    each = found["per_document"]
    assert len(each) == 3
    assert all(".jsonl:" in one["document"] for one in each)
    assert sum(one["targets"] for one in each) == found["targets"]
    assert sum(one["bytes"] for one in each) == found["bytes"]
    # Alone they don't see the others, as in a row where documents are isolated.
    nats = sum(one["loss"] * one["targets"] for one in each)
    assert nats == pytest.approx(found["loss"] * found["targets"], rel=0.05)


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """Files of three kinds; one holds the lone surrogate of a letter cut in two."""
    folder = tmp_path / "te[x]ts"
    folder.mkdir()
    (folder / "a.txt").write_text("def f(x):\n    return x\n" * 40, "utf-8")
    (folder / "b.jsonl").write_text('{"text": "zwölf Boxkämpfer"}\n{"text": "jagen"}\n', "utf-8")
    return folder


def test_any_text_is_scored_whole(chomp: Any, evaluated_run: Path, files: Path):
    # 3 documents with an end token each, from a byte tokenizer: a target for each byte.
    found = scores(chomp, evaluated_run, "--files", files / "a.txt", "--files", files / "b.jsonl")
    size = len("def f(x):\n    return x\n" * 40) + len("zwölf Boxkämpfer".encode()) + 5
    assert (found["documents"], found["bytes"] + 3, found["targets"]) == (3, size, size)
    assert found["perplexity"] == pytest.approx(math.exp(found["loss"]))
    assert found["bits_per_byte"] * found["bytes"] == pytest.approx(
        found["loss"] * found["targets"] / math.log(2)
    )


def test_a_document_without_a_byte_to_predict_has_no_bits_per_byte(
    chomp: Any, evaluated_run: Path, tmp_path: Path
):
    # Of "a" the end alone is predicted; of the other text the 256th target is its end.
    (tmp_path / "short.jsonl").write_text('{"text": "a"}\n{"text": "%s"}\n' % ("x" * 256))
    asked = ("--files", tmp_path / "short.jsonl")
    found = scores(chomp, evaluated_run, *asked, "--per-document")
    assert [each["bytes"] for each in found["per_document"]] == [0, 255]
    assert [each["bits_per_byte"] is None for each in found["per_document"]] == [True, False]
    found = scores(chomp, evaluated_run, *asked, "--context", 999)
    assert [each["bits_per_byte"] is None for each in found["by_position"]] == [False, True]
    done = chomp("eval", evaluated_run, *asked, "--context", 999, "--per-document")
    assert (done.code, "nan" in done.out) == (0, True)


def test_streams_carry_the_state_beyond_a_row(chomp: Any, evaluated_run: Path, files: Path):
    asked = ("--files", files / "a.txt", "--context", 16384)
    found = scores(chomp, evaluated_run, *asked)
    parts = found["by_position"]
    assert [part["first"] for part in parts] == [1, 256, 512]
    assert sum(part["targets"] for part in parts) == found["targets"] > 64
    assert sum(part["bytes"] for part in parts) == found["bytes"]
    huge = scores(chomp, evaluated_run, *asked[:-1], 10**15)
    assert huge["by_position"][:-1] == parts[:-1]
    done = chomp("eval", evaluated_run, *asked, "--per-document")
    assert "   512 to 1023" in done.out and "a.txt:0" in done.out


def test_a_dataset_is_scored(chomp: Any, evaluated_run: Path, files: Path, tmp_path: Path):
    folder = tmp_path / "dataset"
    folder.mkdir()
    (folder / "test.jsonl").write_bytes((files / "b.jsonl").read_bytes().replace(b"text", b"body"))
    ours = scores(chomp, evaluated_run, "--files", files / "b.jsonl")
    theirs = scores(chomp, evaluated_run, "--dataset", folder, "--text-key", "body")
    assert theirs["loss"] == ours["loss"]
    done = chomp("eval", evaluated_run, "--dataset", folder, "--split", "nowhere")
    assert (done.code, "nowhere" in done.err) == (2, True)


def test_changed_texts_are_said(
    chomp: Any, tmp_path: Path, values: Callable[..., Values], files: Path
):
    data = {"files": [str(files / "b.jsonl")], "eval_files": [str(files / "a.txt")]}
    sections = {"train": {"eval_every": 4}, "data": data}
    config = tmp_path / "config.yaml"
    config.write_text(yaml.safe_dump(values("dummy", **sections)), "utf-8")
    assert chomp("train", config, "--run-dir", tmp_path / "run").code == 0
    done = chomp("eval", tmp_path / "run")
    assert (done.code, done.err) == (0, "")
    (files / "a.txt").write_text("other text", "utf-8")
    done = chomp("eval", tmp_path / "run")
    assert (done.code, "have changed since" in done.err) == (0, True)
    done = chomp("eval", tmp_path / "run", "--context", 99)
    assert (done.code, "leave --context out" in done.err) == (2, True)


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (("--files", "nothing/*.txt"), "nothing/*.txt"),
        (("--files", "{empty}"), "empty.txt"),
        (("--files", "x", "--dataset", "y"), "not both"),
        (("--context", 1), "--context"),
    ],
)
def test_what_can_not_be_scored_is_one_line(
    chomp: Any, evaluated_run: Path, tmp_path: Path, args: tuple, said: str
):
    (tmp_path / "empty.txt").write_text("")
    args = tuple(str(arg).format(empty=tmp_path / "empty.txt") for arg in args)
    done = chomp("eval", evaluated_run, *args)
    assert done.code == 2
    assert said in done.err
    assert "Traceback" not in done.err


def test_a_run_that_held_nothing_out_names_the_way_on(chomp: Any, small_run: Path):
    done = chomp("eval", small_run)
    assert (done.code, "--files" in done.err) == (2, True)
