"""Documents that are left out are said as soon as they are many, by file and reason."""

import json

import pytest

from chomp.config.sources import FileSource
from chomp.system.console import Console

OTHER = {"body": "words under another key", "id": 1}


class Said(Console):
    """Keeps warnings."""

    def __init__(self):
        self.lines = []

    def warn(self, text):
        self.lines.append(text)


def lines_of(opened, files, count=3, **keys):
    """What is said while some batches are drawn."""
    said = Said()
    data = opened(backend="files", files=files, console=said, **keys)
    for _ in range(count):
        next(data.train)
    return said.lines


@pytest.mark.parametrize("shuffle", [False, True])
@pytest.mark.parametrize("lanes", [1, 2])
def test_a_file_with_another_key_is_named_before_the_first_batch(
    opened, write_lines, shuffle, lanes
):
    good = write_lines("a.jsonl", *({"text": f"some words {i} " * 9} for i in range(275)))
    bad = write_lines("b.jsonl", *[OTHER] * 161)
    keys = {"shuffle": shuffle, "shape": (1, 2, 4096), "of_lanes": lanes}
    if shuffle and lanes == 1:
        said = lines_of(opened, [str(good), str(bad)], 1, **keys)
        assert said[-1].startswith("161 of the 436 documents read so far are left out (37%): ")
        assert all(
            f" in {bad}: no 'text' (give the file its text_key), but body, id" in line
            for line in said
        )
        assert 1 <= len(said) <= 4
    entry = FileSource(path=str(bad), text_key="body")
    assert lines_of(opened, [str(good), entry], 9, **keys) == []


@pytest.mark.parametrize(
    "row, reason",
    [
        ({"text": ""}, "without text"),
        ({"text": None}, "without text"),
        ({"other": "a"}, "no 'text' (give the file its text_key), but other"),
        (b"{broken", "broken JSON"),
        ({"text": 5}, "the text is not a string but int 5"),
    ],
)
def test_every_reason_is_said(opened, write_lines, row, reason):
    good = [{"text": f"some words {i}"} for i in range(10)]
    path = write_lines("a.jsonl", *(good * 9 + [row] * 2) * 5)
    line, *_ = lines_of(opened, [str(path)], 30, on_error="skip", shuffle=False)
    assert line.endswith(f"in {path}: {reason}")


@pytest.mark.parametrize("shuffle", [False, True])
@pytest.mark.parametrize("encoding", ["latin-1", "cp1252", "shift-jis"])
def test_texts_in_another_encoding_are_said(opened, tmp_path, write_lines, encoding, shuffle):
    good = write_lines("a.jsonl", *[{"text": "some words"}] * 9)
    words = "日本語" if encoding == "shift-jis" else "été à la plage"
    for number in range(3):
        (tmp_path / f"{number}.txt").write_bytes(f"{words} {number}".encode(encoding))
    said = lines_of(opened, [f"{tmp_path}/*"], 9, shuffle=shuffle)
    assert said[0].startswith(
        "3 of the 12 documents read so far hold broken characters, replaced by U+FFFD (25%): 1 in "
    )
    assert "0.txt: not UTF-8, or lone surrogates" in said[0]
    assert lines_of(opened, [str(good)], 9, shuffle=shuffle) == []


def test_evaluation_documents_that_are_left_out_are_said(opened, write_lines):
    good = write_lines("a.jsonl", *[{"text": "some words"}] * 9)
    other = write_lines("b.jsonl", *[{"text": "some words"}] * 9, *[OTHER] * 3)
    said = lines_of(opened, [str(good)], 9, eval_files=[str(other)], evaluate=True)
    assert [line.partition(":")[0] for line in said] == [
        "3 of the 12 documents read so far are left out (25%)"
    ]


def test_few_are_not_said_and_many_more_are_said_again(opened, write_lines):
    few = [{"text": "some words"}] * 200 + [{"text": ""}] * 2
    assert lines_of(opened, [str(write_lines("few.jsonl", *few))]) == []
    growing = [{"text": "some words"}] * 100 + [{"text": ""}] * 300 + [{"text": "some words"}]
    said = lines_of(opened, [str(write_lines("more.jsonl", *growing))], shuffle=True)
    assert [line.split()[0] for line in said] == ["2", "20", "200", "300"]


def test_it_is_on_the_console_in_the_log_and_in_the_metrics(
    chomp, config_file, tmp_path, corpus, read_rows
):
    other = tmp_path / "other.jsonl"
    other.write_text((json.dumps(OTHER) + "\n") * 50)
    config = config_file(
        train={"steps": 300, "log_every": 50},
        data={"files": [str(corpus), str(other)], "shuffle_buffer_size": 500},
    )
    done = chomp("train", config, "--run-dir", tmp_path / "run")
    assert done.code == 0, done.err
    for said in done.out, (tmp_path / "run" / "train.log").read_text():
        assert f"50 in {other}: no 'text'" in said
    rows = read_rows(tmp_path / "run")
    assert rows[-1]["docs_skipped"] > 0
    for row in rows:
        total = row["docs_seen"] + row["docs_skipped"]
        assert row["docs_skipped_share"] == row["docs_skipped"] / max(1, total)
