import os
import shutil

import pytest

from chomp.data.sources import fingerprint
from chomp.data.sources.fingerprint import copies, digest_files, digest_texts
from chomp.errors import DataError


@pytest.mark.parametrize("whole", [True, False])
def test_a_change_in_any_file_is_seen(tmp_path, monkeypatch, whole):
    if not whole:
        monkeypatch.setattr(fingerprint, "FULL_DIGEST_BYTES", 10)
    paths = [str(tmp_path / name) for name in ("a.txt", "b.txt")]
    for path in paths:
        with open(path, "w") as file:
            file.write("x" * 100)
    before = digest_files(paths)
    assert digest_files(paths) == before
    with open(paths[1], "w") as file:
        file.write("x" * 99 + "y")
    os.utime(paths[1], ns=(5, 5))
    after = digest_files(paths)
    assert {key for key in before if before[key] != after[key]} == {"digest", "file b.txt"}


def test_a_corpus_may_move(tmp_path):
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / "a.txt").write_text("a")
    shutil.copytree(tmp_path / "one", tmp_path / "two")
    assert digest_files([str(tmp_path / "one" / "a.txt")]) == digest_files(
        [str(tmp_path / "two" / "a.txt")]
    )


def test_many_files_have_one_entry(tmp_path):
    paths = [str(tmp_path / f"{i}.txt") for i in range(fingerprint.NAMED_FILES + 1)]
    for path in paths:
        with open(path, "w") as file:
            file.write(path)
    assert set(digest_files(paths)) == {"files", "bytes", "digest"}


def test_texts():
    assert digest_texts(["ab", "c"]) != digest_texts(["a", "bc"])
    assert digest_texts(["\ud800"])["documents"] == 1


def test_a_file_that_vanished(tmp_path):
    with pytest.raises(DataError, match=r"gone\.txt: can't be read"):
        digest_files([str(tmp_path / "gone.txt")])


def test_copies_are_found_by_content(tmp_path):
    contents = {
        "a": b"one",
        "b": b"two",
        "c": b"longer",
        "d": b"one",
        "e": b"six",
        "f": b"",
        "g": b"",
    }
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    left, right = ([str(tmp_path / name) for name in names] for names in ("acf", "bdeg"))
    assert copies(left, right) == [(left[0], right[1])]
    assert copies([], right) == copies(left, []) == []
