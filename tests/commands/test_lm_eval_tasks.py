import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

INSTALLED = importlib.util.find_spec("lm_eval") is not None


@pytest.mark.skipif(INSTALLED, reason="the extra `lm-eval` is there")
def test_without_the_extra_it_says_what_to_install(chomp: Callable[..., Any], small_run: Path):
    done = chomp("lm-eval", small_run, "arc_easy")
    assert (done.code, done.out) == (2, "")
    assert done.err == (
        "error: the package lm_eval is not installed; run pip install 'chomp[lm-eval]'\n"
    )


@pytest.mark.skipif(not INSTALLED, reason="needs the extra `lm-eval`")
def test_a_dummy_run_has_no_answers(
    chomp: Callable[..., Any], values: Callable[..., Any], tmp_path: Path
):
    config = tmp_path / "config.yaml"
    config.write_text(yaml.safe_dump(values("dummy")), "utf-8")
    assert chomp("train", config, "--run-dir", tmp_path / "run").code == 0
    done = chomp("lm-eval", tmp_path / "run", "arc_easy")
    assert (done.code, done.out) == (2, "")
    assert "the dummy model can't answer lm_eval's tasks" in done.err


def test_it_needs_a_run_and_a_task(chomp: Callable[..., Any], small_run: Path, tmp_path: Path):
    assert "Missing argument 'TASK...'" in chomp("lm-eval", small_run).err
    done = chomp("lm-eval", tmp_path, "arc_easy")
    assert (done.code, done.out) == (2, "")
    assert str(tmp_path) in done.err
