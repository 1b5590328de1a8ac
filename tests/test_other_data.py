"""A run that goes on with other data, or with the same data in another order or other rows."""

import json

import pytest

from chomp.checkpoint.compatibility import without_evaluation

pytestmark = pytest.mark.usefixtures("share_programs")

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


@pytest.mark.parametrize("packing", ["sequential", "bin"])
def test_a_larger_batch_goes_on_with_the_next_documents(
    chomp, config_file, read_rows, tmp_path, packing
):
    data = {"packing_mode": packing, "packing_buffer_docs": 3}
    config = config_file(**SIZES, data=data)
    straight, run = tmp_path / "straight", tmp_path / "run"
    assert chomp("train", config, "--run-dir", straight, "-o", "train.steps=10").code == 0
    assert chomp("train", config, "--run-dir", run).code == 0
    larger = ["-o", "train.grad_accum=4", "--allow-change", "train.grad_accum"]
    more = ["--run-dir", run, "--resume", "latest", "-o", "train.steps=7"]
    done = chomp("train", config, *more, *larger)
    assert done.code == 0, done.err
    # Four steps of 4 rows and three of 8 are ten of 4.
    longer, larger = (read_rows(folder)[-1] for folder in (straight, run))
    assert (longer["tokens_seen"], longer["docs_seen"]) == (
        larger["tokens_seen"],
        larger["docs_seen"],
    )
    assert named(read_rows, straight) == named(read_rows, run)


def named(read_rows, run):
    """Return the documents that a run's ledger names, by shard and row."""
    lines = read_rows(run / "ledger.jsonl")[1:]
    return {(shard, row) for line in lines for shard, rows in line["docs"].items() for row in rows}


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


def test_a_default_of_an_earlier_version_stays_that_of_its_runs(
    chomp, config_file, read_rows, tmp_path
):
    """`data.max_eval_samples` was 1000 then, and is in the checkpoint."""
    config = config_file(**SIZES, data={"max_eval_samples": None})
    straight, run = tmp_path / "straight", tmp_path / "run"
    old = ["-o", "data.max_eval_samples=1000", "-o", "train.eval_every=4"]
    assert chomp("train", config, "--run-dir", straight, *old, "-o", "train.steps=8").code == 0
    assert chomp("train", config, "--run-dir", run, *old).code == 0
    more = ["-o", "train.steps=8", "-o", "train.eval_every=4"]
    done = chomp("train", config, "--run-dir", run, "--resume", "latest", *more)
    assert done.code == 0, done.err
    assert hashes(read_rows, run) == hashes(read_rows, straight)
    resolved = json.loads((run / "config_resolved.json").read_text())
    assert resolved["data"]["max_eval_samples"] == 1000


def test_what_is_evaluated_is_said_at_the_start_and_checked_in_a_dry_run(
    chomp, config_file, tmp_path
):
    config = config_file(train={"eval_every": 2}, data={"max_eval_samples": None})
    done = chomp("train", config, "--dry-run")
    assert done.code == 0, done.err
    assert "evaluation 7 documents, " in done.out
    assert "held out of training" in done.out
    broken = tmp_path / "val.jsonl"
    broken.write_text('{"text": "good text"}\n{broken\n')
    for command in (["--dry-run"], ["--run-dir", tmp_path / "run"]):
        done = chomp("train", config, *command, "-o", f"data.eval_files=[{broken}]")
        assert done.code == 2
        assert "val.jsonl, line 2: broken JSON" in done.err
    done = chomp("train", config, "--dry-run", "-o", "data.max_eval_samples=150")
    assert "warning: data.max_eval_samples: 150 documents can't be held out" in done.out


def test_a_split_that_is_not_evaluated_on_may_be_missing(chomp, config_file, tmp_path):
    folder = tmp_path / "set"
    folder.mkdir()
    for name in ("train", "validation"):
        lines = (json.dumps({"text": f"{name} some text {i}"}) + "\n" for i in range(50))
        (folder / f"{name}.jsonl").write_text("".join(lines))
    data = {"backend": "hf", "hf_name": None, "hf_dataset": str(folder), "files": []}
    config = config_file(**SIZES, data=data | {"hf_eval_split": "validation"})
    run = tmp_path / "run"
    assert chomp("train", config, "--run-dir", run).code == 0
    (folder / "validation.jsonl").unlink()
    more = ["--resume", "latest", "-o", "train.steps=8"]
    assert chomp("train", config, "--run-dir", run, *more).code == 0


def test_the_digest_of_a_split_that_is_not_evaluated_on_does_not_count():
    """Earlier versions opened it all the same, and kept it in their checkpoints."""
    then = {"data": {"content": {"files": 1, "evaluation digest": "b"}, "tokens": "c"}}
    now = {"data": {"content": {"files": 1}, "tokens": "c"}}
    assert without_evaluation(then) == without_evaluation(now) == now


def test_a_number_of_lanes_that_is_not_heeded_is_said(chomp, config_file, tmp_path):
    config, run = config_file(**SIZES, data={"lanes": 2}), tmp_path / "run"
    assert chomp("train", config, "--run-dir", run).code == 0
    to = ["train", config, "--run-dir", run, "--resume", "latest", "-o", "train.steps=8"]
    done = chomp(*to, "-o", "data.lanes=1", "--allow-change", "data.lanes")
    assert done.code == 0, done.err
    assert "warning: data.lanes: stays 2, as the run began with it (got 1)" in done.out
    assert "data.lanes" not in chomp(*to, "-o", "train.steps=12").out.partition("device")[2]
