"""What paths, folders and globs of a config name."""

import json
import os

import pytest

from chomp.config.sources import FileSource
from chomp.data.sources.local import find_files
from chomp.data.sources.patterns import RUN_FILES, find_paths
from chomp.errors import DataError


def write(path, *texts, key="text"):
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".jsonl":
        path.write_text("".join(json.dumps({key: text}) + "\n" for text in texts))
    else:
        path.write_text("".join(texts))
    return path


def texts_of(*sources, **keys):
    corpus = find_files("data.files", sources, "text", **keys)
    return [row.text for shard in corpus.shards for _, row in shard.rows(0)], corpus.notes


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    "name",
    ["[2024] a", "a*b", "a?b", "[!x]", "**", "ä ö", "a\\b", "-x", "{a,b}", "~", "$HOME", "#"],
)
@pytest.mark.parametrize("form", ["{}/x.jsonl", "{}", "{}/*.jsonl", "./{}/../{}/x.jsonl"])
def test_a_path_that_exists_is_that_path(here, name, form):
    write(here / name / "x.jsonl", "right")
    write(here / "other" / "y.jsonl", "wrong")
    source = form.format(*[name] * form.count("{}"))
    if form == "{}/*.jsonl" and name in ("[2024] a", "a*b", "a?b", "[!x]", "**", "~", "a\\b"):
        return  # a glob whose folder is one as well
    if name == "~":
        source = "./" + source
    assert texts_of(source)[0] == ["right"]


def test_a_folder_is_all_that_is_known_in_it(here):
    write(here / "d" / "a.txt", "a")
    write(here / "d" / "in" / "b.jsonl", "b")
    write(here / "d" / "in" / "c.csv", "c")
    write(here / "d" / ".git" / "d.txt", "d")
    write(here / "e" / "x.csv", "x")
    texts, notes = texts_of("d")
    assert texts == ["a", "b"]
    assert notes == ["data.files: d: other kinds of files are left out: d/in/c.csv"]
    with pytest.raises(DataError, match=r"the folder 'e' holds no file of a known kind"):
        texts_of("e")


def test_links_lead_to_each_file_once(here):
    write(here / "d" / "a.jsonl", "a")
    write(here / "d" / "in" / "b.jsonl", "b")
    for place, target in (("d/loop", "."), ("d/in/up", ".."), ("d/again", "in"), ("l", "d")):
        (here / place).symlink_to(target)
    (here / "d" / "z.jsonl").symlink_to("a.jsonl")
    os.link(here / "d" / "a.jsonl", here / "d" / "hard.jsonl")
    for sources in (["d"], ["d/**/*.jsonl"], ["d", "l", "d/in/up/*.jsonl"], ["**/*.jsonl"]):
        assert sorted(texts_of(*sources)[0]) == ["a", "a", "b"], sources  # a hard link is a file
    names = [shard.name for shard in find_files("data.files", ["**/*.jsonl"], "text").shards]
    assert names == ["d/a.jsonl", "d/hard.jsonl", "d/in/b.jsonl"]


def test_what_a_link_s_parent_is_the_system_says(here):
    write(here / "other" / "q.jsonl", "right")
    write(here / "q.jsonl", "wrong")
    (here / "other" / "deep").mkdir()
    (here / "link").symlink_to("other/deep")
    for source in ("link/../q.jsonl", "link/..", "link/../*.jsonl"):
        assert texts_of(source)[0] == ["right"], source
    both = find_files("data.files", ["link/../q.jsonl", "q.jsonl"], "text")
    assert len(both.shards) == 2
    assert both.fingerprint["files"] == 2
    assert len([key for key in both.fingerprint if key.startswith("file ")]) == 2


@pytest.mark.parametrize("source", ["a.jsonl", "*.jsonl", ".", "**/*.jsonl"])
@pytest.mark.parametrize("target", ["gone.jsonl", "a.jsonl"])
def test_a_link_that_leads_nowhere_is_named(here, source, target):
    write(here / "b.jsonl", "b")
    (here / "a.jsonl").symlink_to(target)
    with pytest.raises(DataError, match=r"a\.jsonl is a link to .* (not there|followed .*); mend"):
        texts_of(source)


def test_a_folder_that_can_not_be_read_is_named(here, monkeypatch):
    write(here / "d" / "a.jsonl", "a")
    write(here / "d" / "shut" / "b.jsonl", "b")
    real = os.listdir

    def listdir(path):
        if str(path).endswith("shut"):
            raise PermissionError(13, "Permission denied")
        return real(path)

    monkeypatch.setattr(os, "listdir", listdir)
    for source in ("d", "d/**/*.jsonl", "d/*/*.jsonl"):
        with pytest.raises(DataError, match="d/shut can't be read: Permission denied"):
            texts_of(source)


def test_files_of_runs_are_left_out(here, small_run):
    # What a run folder is known by is there in one.
    assert len(set(os.listdir(small_run)) & RUN_FILES) >= 3
    write(here / "texts" / "a.jsonl", "a")
    (here / "runs").mkdir()
    (here / "runs" / "first").symlink_to(small_run)
    write(here / "tokens" / "tokenizer" / "vocab.jsonl", "v")
    write(here / "tokens" / "manifest.json", "{}")
    for source in ("**/*.jsonl", "."):
        texts, notes = texts_of(source)
        assert texts == ["a"]
        assert any("files of runs and prepared corpora are left out" in note for note in notes)
    # Unless one is named itself.
    assert len(texts_of("runs/first/metrics.jsonl")[0]) > 1
    with pytest.raises(DataError, match=r"no file is left; .*runs/first"):
        texts_of("runs/*/*.jsonl")


def test_each_entry_may_have_a_key_of_its_own(here):
    write(here / "a.jsonl", "a")
    write(here / "b.jsonl", "b", key="body")
    body = FileSource(path="b.jsonl", text_key="body")
    assert texts_of("a.jsonl", body)[0] == ["a", "b"]
    plain = find_files("data.files", ["a.jsonl", "b.jsonl"], "text")
    assert plain.fingerprint != find_files("data.files", ["a.jsonl", body], "text").fingerprint
    with pytest.raises(DataError, match=r"b\.jsonl is named twice, with the text_key 'text'"):
        texts_of("*.jsonl", body)


def test_files_of_another_use_are_left_out(here):
    write(here / "a.jsonl", "a")
    write(here / "val.jsonl", "v")
    (here / "link.jsonl").symlink_to("val.jsonl")
    taken = find_paths("data.eval_files", ["val.jsonl"], "text").inodes
    texts, notes = texts_of("*.jsonl", not_these=taken)
    assert texts == ["a"]
    assert (
        "evaluation files that it names too are not trained on: link.jsonl, val.jsonl" in notes[0]
    )
    with pytest.raises(DataError, match="no file is left"):
        texts_of("val.jsonl", not_these=taken)


@pytest.mark.parametrize("source", ["d/pipe.txt", "d/*.txt", "**/*.txt"])
def test_a_pipe_is_refused_whatever_names_it(here, source):
    write(here / "d" / "a.txt", "a")
    os.mkfifo(here / "d" / "pipe.txt")
    with pytest.raises(DataError, match=r"'d/pipe\.txt' is a pipe"):
        texts_of(source)
    texts, notes = texts_of("d")
    assert texts == ["a"]
    assert notes == ["data.files: d: other kinds of files are left out: d/pipe.txt"]


def test_an_evaluation_file_that_is_a_copy_of_a_training_file_is_said(opened, here):
    for name in ("a", "b"):
        write(here / f"{name}.txt", name * 99)
    write(here / "e" / "x.txt", "b" * 99)
    keys = {"backend": "files", "files": ["*.txt"], "eval_files": ["e"]}
    (note,) = opened(**keys, evaluate=True).notes
    assert note.endswith("e/x.txt is a copy of b.txt")
    assert opened(**keys).notes == []
