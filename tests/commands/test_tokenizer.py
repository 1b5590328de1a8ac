import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tokenizers

from chomp.commands.starter import TOKENIZER, shipped

Values = dict[str, Any]


@pytest.fixture
def made(config_file: Callable[..., Path], chomp: Any, tmp_path: Path) -> Callable[..., Values]:
    """Make a tokenizer of the small corpus; return what the command says as JSON."""

    def make(*args: object, out: str = "tok.json") -> Values:
        done = chomp(
            *("tokenizer", "train", config_file("dummy"), "-o", tmp_path / out),
            *("--vocab", 400, "--json", *args),
        )
        assert done.code == 0, done.err
        return json.loads(done.out)

    return make


def test_a_tokenizer_is_made_of_the_training_documents_alone(
    made: Any, texts: list[str], tmp_path: Path
):
    found = made()
    assert (found["documents"], found["measured_documents"]) == (147, 3)
    assert found["bytes"] + found["measured_bytes"] == sum(len(text.encode()) for text in texts)
    tokenizer = tokenizers.Tokenizer.from_file(str(tmp_path / "tok.json"))
    assert [tokenizer.token_to_id(name) for name in ("<pad>", "<bos>", "<eos>")] == [0, 1, 2]
    assert tokenizer.get_vocab_size() == found["vocab_size"] == 400
    rates = {each["name"]: each["bytes_per_token"] for each in found["compression"]}
    assert rates["bytes"] == 1.0
    assert 1.5 < rates["this one"] < rates["the quickstart's, of Python"]


def test_a_word_of_the_evaluation_documents_becomes_no_token(chomp: Any, tmp_path: Path):
    word = "Donaudampfschiffahrt"
    (tmp_path / "train.txt").write_text("one two three four " * 50)
    (tmp_path / "eval.txt").write_text(f"{word} " * 200)
    config = tmp_path / "config.yaml"
    data = {
        "backend": "files",
        "files": [f"{tmp_path}/*.txt"],
        "eval_files": [f"{tmp_path}/eval.txt"],
    }
    config.write_text(json.dumps({"data": data}))
    done = chomp("tokenizer", "train", config, "-o", tmp_path / "tok.json")
    assert done.code == 0, done.err
    assert "warning: the texts have no more pairs that repeat" in done.err
    vocabulary = tokenizers.Tokenizer.from_file(str(tmp_path / "tok.json")).get_vocab()
    assert "Ġthree" in vocabulary
    assert not any(token in word for token in vocabulary if len(token) > 3)


def test_the_same_texts_give_the_same_file(made: Any, tmp_path: Path):
    made()
    made(out="again.json")
    assert (tmp_path / "tok.json").read_bytes() == (tmp_path / "again.json").read_bytes()


def test_a_run_trains_with_it(made: Any, config_file: Any, chomp: Any, tmp_path: Path):
    made()
    tokenizer = {"kind": "hf", "hf_name_or_path": str(tmp_path / "tok.json"), "byte_offset": 0}
    config = config_file("dummy", data={"tokenizer": tokenizer})
    done = chomp("train", config, "--run-dir", tmp_path / "run")
    assert done.code == 0, done.err
    done = chomp("tokenizer", "check", config, "--json")
    assert done.code == 0, done.err
    found = json.loads(done.out)
    assert (found["vocab_size"], found["changed"]) == (400, 0)
    assert found["special"] == {"pad": 0, "bos": 1, "eos": 2}
    assert 0 < found["unused"] < 300
    assert found["bytes_per_token"] == pytest.approx(found["bytes"] / found["tokens"])


def test_sources_give_text_by_their_weights(chomp: Any, tmp_path: Path):
    for name in "ab":
        lines = (json.dumps({"text": f"{name} {n:06} " * 10}) for n in range(200))
        (tmp_path / f"{name}.jsonl").write_text("\n".join(lines))
    sources = [
        {"files": [str(tmp_path / f"{n}.jsonl")], "weight": w} for n, w in (("a", 3), ("b", 1))
    ]
    config = tmp_path / "config.yaml"
    config.write_text(json.dumps({"data": {"sources": sources}}))
    command = ("tokenizer", "train", config, "-o", tmp_path / "t.json", "--bytes", 8000, "--json")
    found = json.loads(chomp(*command).out)
    assert 7700 < found["bytes"] <= 8000
    vocabulary = tokenizers.Tokenizer.from_file(str(tmp_path / "t.json"))
    assert vocabulary.token_to_id("Ġa") and vocabulary.token_to_id("Ġb")


def test_documents_that_come_back_changed_are_counted(chomp: Any, tmp_path: Path):
    lower = tokenizers.Tokenizer.from_str(shipped(TOKENIZER))
    lower.normalizer = tokenizers.normalizers.Lowercase()
    lower.save(str(tmp_path / "lower.json"))
    text = tmp_path / "text.txt"
    text.write_text("only small letters here\n" + "and A Capital\n" * 20)
    done = chomp("tokenizer", "check", tmp_path / "lower.json", text)
    assert done.code == 1
    assert "1 of 1 document changed; the first: 'A Capital" in done.out
    assert "becomes 'a capital" in done.out


@pytest.mark.parametrize(
    ("args", "problem"),
    [
        (["--vocab", "200"], "--vocab: must be at least 259"),
        (["--compare", "no/such.json"], "no/such.json"),
        (["--bytes", "1"], "--bytes: the first document is larger than 1 bytes"),
    ],
)
def test_what_cannot_be_is_said(
    args: list[str], problem: str, config_file: Any, chomp: Any, tmp_path: Path
):
    out = tmp_path / "tok.json"
    done = chomp("tokenizer", "train", config_file("dummy"), "-o", out, *args)
    assert done.code == 2 and problem in done.err
    assert not out.exists()


def test_a_file_that_is_there_stays(config_file: Any, chomp: Any, tmp_path: Path):
    out = tmp_path / "tok.json"
    out.write_text("mine")
    done = chomp("tokenizer", "train", config_file("dummy"), "-o", out)
    assert (done.code, out.read_text()) == (2, "mine")
    assert "is there already" in done.err
    done = chomp("tokenizer", "train", config_file("dummy"), "-o", tmp_path / "no" / "tok.json")
    assert done.code == 2 and "there is no such folder" in done.err
