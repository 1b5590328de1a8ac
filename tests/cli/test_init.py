"""`chomp init`: configs that work where they are written, and never take the place of a file."""

import json
import threading
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from chomp.config import config_warnings, load_config
from chomp.data import load_tokenizer, open_whole_corpus
from chomp.data.sources.read_policy import read_policy

ENGLISH = "The model learns from the text that it is given, and from nothing else. " * 20
RUSSIAN = "Модель учится на тексте, который ей дают, и больше ни на чём. " * 20


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_each_is_a_config_without_a_warning(chomp):
    for which, name in [("quickstart", "quickstart"), ("100m", "megalodon-100m")]:
        done = chomp("init", which)
        assert done.code == 0
        assert f"chomp train {name}.yaml" in done.out
        text = Path(f"{name}.yaml").read_text()
        assert "configs/" not in text and "schema.json" not in text
        assert config_warnings(load_config(Path(f"{name}.yaml"))) == []


@pytest.mark.parametrize("folder", [".", "a b", "new/one", "it's #1: [x]"])
def test_the_quickstart_finds_its_tokenizer(chomp, folder):
    assert chomp("init", "--dir", folder).code == 0
    config = load_config(Path(folder, "quickstart.yaml"))
    assert load_tokenizer(config.data.tokenizer).vocab_size == config.model.vocab_size


def test_nothing_is_overwritten(chomp):
    Path("quickstart.yaml").write_text("mine")
    Path("quickstart-tokenizer.json").write_text("mine too")
    done = chomp("init", "quickstart")
    assert done.code == 2
    assert done.err.splitlines() == [
        f"error: {name}: is there already, and nothing is overwritten; move it away, or write "
        "elsewhere with --dir"
        for name in ("quickstart.yaml", "quickstart-tokenizer.json")
    ]
    assert Path("quickstart.yaml").read_text() == "mine"
    assert Path("quickstart-tokenizer.json").read_text() == "mine too"


def test_a_shipped_tokenizer_that_is_there_is_used_again(chomp):
    Path("one.txt").write_text(ENGLISH)
    assert chomp("init").code == 0
    done = chomp("init", "my-text")
    assert done.code == 0
    assert "wrote  my-text.yaml\n" in done.out


@pytest.mark.parametrize(("text", "kind"), [(ENGLISH, "hf"), (RUSSIAN, "byte")])
@pytest.mark.parametrize("folder", [".", "below/that", "it's #1: [x]"])
def test_the_tokenizer_suits_the_text(chomp, folder, text, kind):
    Path(folder).mkdir(parents=True, exist_ok=True)
    for name in ("one.txt", "two.md"):
        Path(folder, name).write_text(text)
    assert chomp("init", "my-text", "--dir", folder).code == 0
    config = load_config(Path(folder, "my-text.yaml"))
    assert config.data.tokenizer.kind == kind
    assert load_tokenizer(config.data.tokenizer).vocab_size <= config.model.vocab_size
    corpus = open_whole_corpus(config.data, read_policy(config.data, threading.Event()))
    assert [Path(shard.name).name for shard in corpus.shards] == ["one.txt", "two.md"]
    assert config_warnings(config) == []


def test_texts_below_the_folder_are_found_and_runs_are_not(chomp):
    for folder in ("books/old", "runs/one"):
        Path(folder).mkdir(parents=True)
        Path(folder, "some.txt").write_text(ENGLISH)
    for name in ("run.json", "heartbeat"):
        Path("runs/one", name).write_text("{}")
    assert "1 file, " in chomp("init", "my-text").out
    config = load_config(Path("my-text.yaml"))
    assert config.data.files == ("**/*.txt",)


@pytest.mark.parametrize("key", ["body", "null", "1e3", "a: b #c"])
def test_the_key_of_the_texts_is_found(chomp, key):
    rows = [{"id": f"{i}", key: ENGLISH} for i in range(3)]
    Path("a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    pq.write_table(pa.table({"n": [1], "text": [ENGLISH], "url": ["x" * 9999]}), "b.parquet")
    assert chomp("init", "my-text").code == 0
    config = load_config(Path("my-text.yaml"))
    corpus = open_whole_corpus(config.data, read_policy(config.data, threading.Event()))
    texts = [row.text for shard in corpus.shards for _, row in shard.rows(0)]
    assert texts == [ENGLISH] * 4


def test_a_folder_without_texts(chomp):
    done = chomp("init", "my-text")
    assert done.code == 2 and done.err.startswith("error: .: no file here to train on; known are")
    Path("a.jsonl").write_text('{"n": 1}\n')
    done = chomp("init", "my-text")
    assert done.code == 2
    assert done.err == "error: a.jsonl: none of its keys holds text; there are: n\n"
    assert not Path("my-text.yaml").exists()


class TestATokenizerOfTheTexts:
    def test_is_made_and_used(self, chomp):
        Path("texts").mkdir()
        for name, text in (("one.txt", ENGLISH), ("two.md", RUSSIAN), ("three.txt", RUSSIAN)):
            Path("texts", name).write_text(text)
        done = chomp("init", "my-text", "--dir", "texts", "--vocab", 300)
        assert done.code == 0, done.err
        assert "made   texts/tokenizer.json: 300 tokens, from 2 documents of " in done.out
        config = load_config(Path("texts/my-text.yaml"))
        assert config_warnings(config) == []
        tokenizer = load_tokenizer(config.data.tokenizer)
        assert tokenizer.vocab_size == config.model.vocab_size == 300
        [ids] = tokenizer.encode_batch([RUSSIAN])
        assert len(ids) < 0.7 * len(RUSSIAN.encode())
        assert config.data.tokenizer.add_eos and ids[-1] == tokenizer.eos_id
        dry = chomp("train", "texts/my-text.yaml", "--dry-run")
        assert dry.code == 0, dry.err

    def test_overwrites_nothing(self, chomp):
        Path("one.txt").write_text(ENGLISH)
        Path("tokenizer.json").write_text("mine")
        done = chomp("init", "my-text", "--vocab", 300)
        assert done.code == 2
        assert done.err.startswith("error: tokenizer.json: is there already")
        assert Path("tokenizer.json").read_text() == "mine"
        assert not Path("my-text.yaml").exists()

    def test_has_a_token_for_each_byte(self, chomp):
        Path("one.txt").write_text(ENGLISH)
        done = chomp("init", "my-text", "--vocab", 100)
        assert done.code == 2
        assert "--vocab" in done.err
        assert sorted(path.name for path in Path().iterdir()) == ["one.txt"]

    def test_is_for_texts(self, chomp):
        done = chomp("init", "quickstart", "--vocab", 300)
        assert done.code == 2
        assert "--vocab is for my-text" in done.err
