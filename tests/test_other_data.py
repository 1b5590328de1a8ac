"""A run that goes on with other data, or with the same data in another order or other rows."""

import json

import pytest

SIZES = {"checkpoint": {"save_every": 4}, "train": {"steps": 4}}


@pytest.fixture
def other_corpus(tmp_path, texts):
    """A shorter corpus than the run's: places beyond its end are easily met."""
    path = tmp_path / "other.jsonl"
    path.write_text("".join(json.dumps({"text": text[:30]}) + "\n" for text in texts[:20]))
    return path


def hashes(read_rows, run, first=1):
    return [row["batch_hash"] for row in read_rows(run) if row["step"] >= first]


@pytest.mark.parametrize("packing", ["sequential", "bin"])
@pytest.mark.parametrize("shuffle", [False, True])
def test_other_data_comes_from_its_beginning_and_goes_on_exactly(
    chomp, config_file, read_rows, tmp_path, other_corpus, packing, shuffle
):
    data = {"packing_mode": packing, "packing_buffer_docs": 8, "shuffle": shuffle}
    config = config_file(**SIZES, data=data)
    run, twice, fresh = (tmp_path / name for name in ("run", "twice", "fresh"))
    other = ["-o", f"data.files=[{other_corpus}]"]
    for folder in run, twice:
        assert chomp("train", config, "--run-dir", folder).code == 0
    to = ["train", config, "--resume", "latest", *other, "--allow-change", "data"]
    done = chomp(*to, "--run-dir", run, "-o", "train.steps=12")
    assert done.code == 0, done.err
    assert "read from its beginning" in done.out
    # In two parts; the second is a resume like any other.
    assert chomp(*to, "--run-dir", twice, "-o", "train.steps=8").code == 0
    done = chomp(*to[:-2], "--run-dir", twice, "-o", "train.steps=12")
    assert done.code == 0, done.err
    assert "read from its beginning" not in done.out
    assert chomp("train", config, "--run-dir", fresh, *other, "-o", "train.steps=8").code == 0
    assert hashes(read_rows, run, 5) == hashes(read_rows, fresh)
    assert hashes(read_rows, run) == hashes(read_rows, twice)


CHANGES = {
    "data.shuffle=false": "from the beginning",
    "data.seed=7": "from the beginning",
    "data.shuffle_buffer_size=3": "come again",
    "data.packing_mode=bin": "come again",
    "data.tokenizer.max_doc_tokens=5": "come again",
    "data.tokenizer.byte_offset=5": "come again",
    "data.tokenizer.add_eos=false": "come again",
    "train.seq_len=32": "",
    "train.batch_size=4": "",
    "data.mask_boundary_loss=false": "",
    "train.eval_every=4": "come again",
    "data.on_error=skip": "",
}


@pytest.mark.parametrize("change", CHANGES)
def test_every_change_that_is_allowed_goes_on(chomp, config_file, read_rows, tmp_path, change):
    config = config_file(**SIZES, data={"max_eval_samples": 3})
    run = tmp_path / "run"
    assert chomp("train", config, "--run-dir", run).code == 0
    more = ["-o", "train.steps=8", "-o", change, "--allow-change", change.partition("=")[0]]
    more += ["--allow-change", "data", "--allow-change", "train", "--allow-change", "model"]
    done = chomp("train", config, "--run-dir", run, "--resume", "latest", *more)
    assert done.code == 0, done.err
    assert len(read_rows(run)) == 8
    lines = [line for line in done.out.splitlines() if line.startswith("data  ")]
    assert (CHANGES[change] in lines[-1]) if CHANGES[change] else len(lines) == 1


def test_a_mended_corpus_that_lost_the_place_is_an_error(chomp, config_file, tmp_path, texts):
    path = tmp_path / "own.jsonl"
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    for packing in "sequential", "bin":
        path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
        data = {"files": [str(path)], "shuffle": False, "packing_mode": packing}
        config = config_file(train={"steps": 90}, data=data | {"packing_buffer_docs": 8})
        run = tmp_path / packing
        assert chomp("train", config, "--run-dir", run).code == 0
        path.write_text(json.dumps({"text": "all that is left of it"}) + "\n")
        resume = ["train", "--run-dir", run, "--resume", "latest", "-o", "train.steps=94"]
        done = chomp(*resume, "--allow-change", "data.content")
        assert done.code != 0
        assert "the saved place in the data isn't in it" in done.err
        assert "--allow-change data" in done.err
        assert chomp(*resume, "--allow-change", "data").code == 0
