"""Prepared tokens as a user meets them: prepare, look, train, resume, trace."""

import json
from pathlib import Path

import pytest


@pytest.fixture(scope="module")
def prepared(tmp_path_factory, values, chomp) -> Path:
    import yaml

    folder = tmp_path_factory.mktemp("prepared")
    config = values(train={"eval_every": 2}, data={"packing_mode": "bin"})
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    done = chomp("data", "prepare", folder / "config.yaml", folder / "out", "--shard-tokens", 9000)
    assert done.code == 0, done.err
    assert f"-o data.backend=tokens -o data.tokens_dir={folder / 'out'}" in done.out
    return folder


def train(chomp, prepared, run, *more):
    tokens = f"data.tokens_dir={prepared / 'out'}"
    return chomp(
        *("train", prepared / "config.yaml", "--run-dir", run),
        *("-o", "data.backend=tokens", "-o", tokens, *more),
    )


def test_a_run_from_tokens_is_resumed_traced_and_evaluated(
    chomp, prepared, tmp_path, read_rows, texts
):
    straight, stopped = tmp_path / "straight", tmp_path / "stopped"
    shared = ("-o", "optim.decay_steps=20")
    assert train(chomp, prepared, straight, "-o", "train.steps=12", *shared).code == 0
    save = ("-o", "checkpoint.save_every=6")
    assert train(chomp, prepared, stopped, "-o", "train.steps=6", *save, *shared).code == 0
    done = train(
        chomp, prepared, stopped, "-o", "train.steps=12", *save, *shared, "--resume", "latest"
    )
    assert done.code == 0, done.err
    rows = [
        {row["step"]: (row["loss"], row["batch_hash"], row.get("eval_loss")) for row in found}
        for found in (read_rows(straight), read_rows(stopped))
    ]
    assert rows[0] == rows[1] and len(rows[0]) == 12
    found = json.loads(chomp("trace", stopped, "--step", 9, "--json").out)
    assert len(found["documents"]) > 3
    for document in found["documents"]:
        assert document["source"] == str(prepared / "out") and document["problem"] is None
        line = chomp("data", "show", prepared / "out", "--document", document["row"], "--json")
        shown = json.loads(line.out)
        assert shown["text"][:200] == document["text"]
        assert shown["text"] == texts[shown["row"]]
        assert shown["source"].endswith("texts.jsonl")


def test_show_and_verify_say_what_is_there(chomp, prepared, tmp_path):
    shown = chomp("data", "show", prepared / "out").out
    assert "147 documents" in shown and "evaluation  3 documents" in shown
    assert "kind byte, byte_offset 3" in shown and "add_eos True" in shown
    text = chomp("data", "show", prepared / "out", "--document", 2, "--evaluation").out
    assert text.startswith("document 2: ") and "texts.jsonl, row" in text
    refused = chomp("data", "show", prepared / "out", "--document", 147)
    assert refused.code == 2 and "numbered from 0 to 146" in refused.err
    verified = chomp("data", "verify", prepared / "out")
    assert verified.code == 0
    assert verified.out.splitlines()[0] == "evaluation: good" and "tokenizer: good" in verified.out


def test_verify_finds_one_wrong_bit_and_a_lost_tokenizer(chomp, prepared, tmp_path):
    import shutil

    copy = Path(shutil.copytree(prepared / "out", tmp_path / "copy"))
    path = copy / "train-00001.documents.npy"
    data = bytearray(path.read_bytes())
    data[-20] ^= 4
    path.write_bytes(data)
    (copy / "tokenizer" / "chomp_tokenizer.json").unlink()
    done = chomp("data", "verify", copy)
    assert done.code == 1
    assert "train-00000: good" in done.out
    assert f"train-00001: {path}: not what was written" in done.out
    assert "not a tokenizer snapshot" in done.out


def test_what_cannot_be_is_refused_with_what_to_do(chomp, prepared, tmp_path):
    config = prepared / "config.yaml"
    again = chomp("data", "prepare", config, tmp_path / "o", "-o", "data.backend=tokens",
                  "-o", "data.tokens_dir=x")  # fmt: skip
    assert again.code == 2 and "data.backend: tokens are prepared already" in again.err
    other = train(chomp, prepared, tmp_path / "run", "-o", "data.tokenizer.add_eos=false")
    assert other.code == 2 and "data.tokenizer.add_eos: " in other.err
    assert "was prepared with true (got false)" in other.err
    missing = chomp("train", config, "--dry-run", "-o", "data.backend=tokens")
    assert missing.code == 2 and "data.tokens_dir: must name a folder" in missing.err
    nothing = chomp("data", "show", tmp_path)
    assert nothing.code == 2 and "not a prepared corpus" in nothing.err
