import json
import shutil
from pathlib import Path
from typing import Any

import jax
import pytest

from chomp.checkpoint.checkpointer import Checkpointer
from chomp.commands.generate import GenerateRequest, _decoded, generate_text
from chomp.config import config_from_mapping
from chomp.data import load_tokenizer
from chomp.generation import Sampling, generate_ids
from chomp.models import build_model
from chomp.system.console import Console

OPTIONS = ("--max-tokens", 24, "--temperature", 0.7, "--top-k", 20, "--top-p", 0.9)
COMMON = (*OPTIONS, "--prompt", "def ")


@pytest.fixture
def continued(chomp: Any, small_run: Path):
    """Run `chomp generate` on the small run; the output, which began with the prompt."""

    def run(*args: object) -> str:
        done = chomp("generate", small_run, *COMMON, *args)
        assert done.code == 0, done.err
        assert done.out.startswith("def ")
        return done.out

    return run


def test_the_same_seed_gives_the_same_text_and_another_another(continued: Any):
    assert continued("--seed", 5) == continued("--seed", 5)
    assert continued("--seed", 5) != continued("--seed", 6)


def test_it_is_the_library_s_text_for_the_key(continued: Any, small_run: Path):
    """As one whole call gives it, from parameters restored by hand."""
    values = json.loads((small_run / "config_resolved.json").read_text())
    values.pop("derived")
    config = config_from_mapping(values)
    tokenizer = load_tokenizer(config.data.tokenizer, small_run / "tokenizer")
    model = build_model(config.model, isolate_documents=False)
    checkpoints = Checkpointer(small_run / "checkpoints")
    shapes = jax.eval_shape(model.init, jax.random.PRNGKey(0))
    params = checkpoints.restore_params(20, shapes)
    checkpoints.close()
    sampling = Sampling(24, 0.7, 20, 0.9, tokenizer.eos_id)
    key = jax.random.fold_in(jax.random.PRNGKey(5), 0)
    ids = generate_ids(params, tokenizer.encode_prompt("def "), sampling, key)
    assert continued("--seed", 5, "--step", 20) == f"def {tokenizer.decode(ids)}\n"


def test_steps_differ_and_latest_is_the_last(continued: Any, chomp: Any, small_run: Path):
    assert continued() == continued("--step", "latest") == continued("--step", 30)
    assert continued() != continued("--step", 10)
    done = chomp("generate", f"{small_run}:10", *COMMON)
    assert done.out == continued("--step", 10)
    done = chomp("generate", f"{small_run}:10", *COMMON, "--step", 20)
    assert (done.code, "the step is 10 in RUN:STEP and 20 in --step" in done.err) == (2, True)


def test_a_prompt_from_standard_input(chomp: Any, continued: Any, small_run: Path):
    done = chomp("generate", small_run, *OPTIONS, stdin="def ")
    assert done.out == continued()


def test_several_samples_are_numbered_and_differ(continued: Any, chomp: Any, small_run: Path):
    done = chomp("generate", small_run, *COMMON, "--samples", 3)
    _, *parts = done.out.split("--- sample ")
    heads, bodies = zip(*(part.split("\n", 1) for part in parts), strict=True)
    assert heads == ("1 of 3", "2 of 3", "3 of 3")
    assert len(set(bodies)) == 3
    # The first is what one sample alone would have been.
    assert bodies[0] == continued()


def test_a_damaged_checkpoint_is_passed_over(continued: Any, chomp: Any, small_run: Path, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(small_run, copy)
    (copy / "checkpoints" / "30" / "params" / "_METADATA").unlink()
    done = chomp("generate", copy, *COMMON)
    assert done.code == 0, done.err
    assert "step 30 is damaged: params/_METADATA is missing" in done.err
    assert "falling back to step 20" in done.err
    assert done.out == continued("--step", 20) != continued()
    done = chomp("generate", copy, *COMMON, "--step", 30)
    assert (done.code, "params/_METADATA is missing (good steps: 10, 20)" in done.err) == (2, True)


def test_text_comes_in_pieces(small_run: Path, no_lines: Console):
    request = GenerateRequest(
        run_dir=small_run,
        step="latest",
        prompt="def ",
        sampling=Sampling(max_tokens=24, temperature=0.7, top_k=20, top_p=0.9),
        seed=0,
        samples=1,
    )
    pieces = list(generate_text(request, no_lines))
    assert pieces[0] == "def "
    assert len([piece for piece in pieces if piece]) > 8


def test_a_character_of_several_tokens_comes_whole(make_config: Any):
    tokenizer = load_tokenizer(make_config("megalodon").data.tokenizer)
    text = "aé€😀z"
    ids = tokenizer.encode_prompt(text)
    assert [piece for piece in _decoded(iter(ids), tokenizer) if piece] == list(text)
    # What stays incomplete at the end is shown as the tokenizer shows it.
    assert "".join(_decoded(iter(ids[:2]), tokenizer)) == "a\ufffd"


def test_an_empty_prompt_is_the_beginning_of_a_text(chomp: Any, small_run: Path):
    done = chomp("generate", small_run, "--max-tokens", 8, "--prompt", "")
    assert done.code == 0, done.err


@pytest.mark.parametrize(
    ("args", "message"),
    [(("--step", 9), "saved steps: 10, 20, 30"), (("--step", "newest"), "'latest'")],
)
def test_a_step_that_is_not_there(chomp: Any, small_run: Path, args: Any, message: str):
    done = chomp("generate", small_run, *COMMON, *args)
    assert done.code == 2
    assert message in done.err


def test_what_can_not_generate_says_why(chomp: Any, config_file: Any, tmp_path: Path):
    done = chomp("generate", tmp_path, *COMMON)
    assert (done.code, "holds no run" in done.err) == (2, True)
    run = tmp_path / "run"
    assert chomp("train", config_file(), "--run-dir", run).code == 0
    done = chomp("generate", run, *COMMON)
    assert (done.code, "dummy model can't generate" in done.err) == (2, True)


def test_a_run_without_checkpoints_says_so(chomp: Any, small_run: Path, tmp_path: Path):
    copy = tmp_path / "copy"
    shutil.copytree(small_run, copy, ignore=shutil.ignore_patterns("checkpoints"))
    done = chomp("generate", copy, *COMMON)
    assert done.code == 2
    assert "has no checkpoints" in done.err and not (copy / "checkpoints").exists()
