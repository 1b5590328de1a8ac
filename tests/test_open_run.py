"""A saved run from Python."""

import json
import math
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import pytest

import chomp
from chomp.errors import DataError, ResumeError


def test_its_parts_are_those_of_the_checkpoint(evaluated_run: Path):
    run = chomp.open_run(evaluated_run)
    assert (run.step, run.path) == (4, evaluated_run)
    assert chomp.open_run(f"{evaluated_run}:2").step == 2
    assert isinstance(run.config, chomp.Config)
    (ids,) = run.tokenizer.encode_batch(["def f(x):"])
    logits, _ = run.params(jnp.asarray([ids]))
    assert logits.shape == (1, len(ids), run.config.model.vocab_size)
    assert str(evaluated_run) in repr(run)


def test_text_is_that_of_the_command(evaluated_run: Path, chomp: Any):
    from chomp import open_run

    done = chomp("generate", evaluated_run, "--prompt", "def ", "--max-tokens", 9, "--seed", 3)
    text = open_run(evaluated_run).generate("def ", max_tokens=9, seed=3)
    assert done.out == f"def {text}\n"


def test_scores_are_those_of_the_command(evaluated_run: Path, chomp: Any, tmp_path: Path):
    from chomp import open_run

    texts = ["def f(x):\n    return x\n" * 20, "zwölf"]
    (tmp_path / "texts.jsonl").write_text("".join(json.dumps({"text": t}) + "\n" for t in texts))
    done = chomp(
        *("eval", evaluated_run, "--files", tmp_path / "texts.jsonl", "--per-document", "--json")
    )
    theirs = json.loads(done.out)["per_document"]
    ours = open_run(evaluated_run).score(texts)
    assert [score.as_values() for score in ours] == [
        {key: value for key, value in each.items() if key != "document"} for each in theirs
    ]
    assert ours[0].perplexity == pytest.approx(math.exp(ours[0].loss))
    with pytest.raises(DataError, match=r"texts\[1\]"):
        open_run(evaluated_run).score(["words", ""])


def test_metrics_are_the_rows(evaluated_run: Path, read_rows: Any, monkeypatch: Any):
    rows = read_rows(evaluated_run)
    monkeypatch.setitem(sys.modules, "pandas", None)  # as where it isn't installed
    assert chomp.open_run(evaluated_run).metrics() == rows


def test_it_stays_the_same_run_in_another_folder(
    evaluated_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(evaluated_run.parent)
    run = chomp.open_run(evaluated_run.name)
    monkeypatch.chdir(tmp_path)
    assert (run.step, run.path) == (4, evaluated_run)
    with pytest.raises(ResumeError, match="no such user"):
        chomp.open_run("~nobody-here/run")


def test_rows_of_a_run_that_is_writing(evaluated_run: Path, read_rows: Any, tmp_path: Path):
    shutil.copytree(evaluated_run, tmp_path / "run")
    with (tmp_path / "run" / "metrics.jsonl").open("a", encoding="utf-8") as file:
        # U+2028 and U+0085 end a line of a text, and none of JSON.
        file.write('{"step": 5, "error": "Type\u2028Error", "reason": "\x85"}\n{"step": 6, "lo')
    rows = chomp.open_run(tmp_path / "run").metrics()
    assert len(rows) == len(read_rows(evaluated_run)) + 1


def test_metrics_are_a_table_where_pandas_is_there(evaluated_run: Path, read_rows: Any):
    pytest.importorskip("pandas")
    table = chomp.open_run(evaluated_run).metrics()
    assert table["loss"].tolist() == [row["loss"] for row in read_rows(evaluated_run)]


def test_what_is_no_run_is_named(tmp_path: Path):
    with pytest.raises(ResumeError, match="holds no run"):
        chomp.open_run(tmp_path)


def test_importing_it_costs_nothing():
    code = "import sys, chomp; assert not {'jax', 'numpy', 'pydantic'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
