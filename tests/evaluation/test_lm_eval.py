"""lm_eval itself asks a run: its figures are those of the model, and of `chomp eval`."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
import yaml

import chomp as chomp_package
from chomp.commands.evaluate import scorer_of
from chomp.commands.saved_model import SavedModel, open_run_config, restore_model
from chomp.evaluation.continuations import ContinuationScorer
from chomp.generation import Sampling, generate_ids
from chomp.run.run_folder import RunFolder
from chomp.system.console import LOG
from chomp.trainer.components import batch_spec

pytest.importorskip("lm_eval", reason="needs the extra `lm-eval`")
from lm_eval.api.instance import Instance
from lm_eval.api.model import CacheHook

from chomp.evaluation.lm_eval_model import SavedLM

LONG = "def f(x):\n    return x + 1\n" * 30
"""Many rows' length, and several blocks."""
TEXTS = ("def f(x):\n    return x\n", "zwölf Boxkämpfer jagen", LONG)


@pytest.fixture(scope="module")
def saved(small_run: Path) -> SavedModel:
    folder = RunFolder(small_run)
    return restore_model(open_run_config(folder, False, LOG), folder, "latest", LOG)


@pytest.fixture(scope="module")
def model(saved: SavedModel) -> SavedLM:
    layout = batch_spec(saved.config)
    return SavedLM(saved.params, saved.tokenizer, layout, scorer_of(saved), LOG)


def asked(kind: Any, *requests: tuple[Any, ...]) -> list[Instance]:
    return [Instance(kind, {}, each, number) for number, each in enumerate(requests)]


PAIRS = [("def f(x):", "\n    return"), ("a", "b"), (LONG, " return"), ("x = ", "1"), ("", "def")]


def test_likelihoods_are_those_of_the_tokens(model: SavedLM, saved: SavedModel):
    found = model.loglikelihood(asked("loglikelihood", *PAIRS), disable_tqdm=True)
    encode = saved.tokenizer.encode_prompt
    # A byte tokenizer: a token for each character, and the end token before a bare beginning.
    # Spaces at its end belong to the continuation.
    pairs = [
        (encode("def f(x):"), encode("\n    return")),
        (encode("a"), encode("b")),
        (encode(LONG.rstrip()), encode("\n return")),
        (encode("x ="), encode(" 1")),
        ([2], encode("def")),
    ]
    expected = dict(ContinuationScorer(saved.params, batch_spec(saved.config)).score(pairs))
    assert found == [expected[number] for number in range(len(pairs))]


def test_what_greedy_choice_gives_is_called_greedy(model: SavedLM, saved: SavedModel):
    ids = saved.tokenizer.encode_prompt("def ")
    own = generate_ids(saved.params, ids, Sampling(4, 0.0), jax.random.PRNGKey(0))
    text = saved.tokenizer.decode(own)
    assert saved.tokenizer.encode_prompt(text) == own  # bytes, none of them half a character
    other = text[:-1] + ("#" if text[-1] != "#" else "%")
    found = model.loglikelihood(
        asked("loglikelihood", ("def ", text), ("def ", other)), disable_tqdm=True
    )
    assert [greedy for _, greedy in found] == [True, False]


def test_the_order_of_requests_is_kept(model: SavedLM):
    together = model.loglikelihood(asked("loglikelihood", *PAIRS), disable_tqdm=True)
    alone = [
        model.loglikelihood(asked("loglikelihood", pair), disable_tqdm=True)[0] for pair in PAIRS
    ]
    assert [value for value, _ in together] == pytest.approx([v for v, _ in alone], rel=1e-5)
    assert model.loglikelihood([], disable_tqdm=True) == []


def test_a_continuation_in_the_contexts_last_token_is_scored_with_it(
    model: SavedLM, monkeypatch: pytest.MonkeyPatch
):
    # As a tokenizer that makes one token of "ab" does.
    ids = {"a": [7], "ab": [9], "ca": [8, 7], "cab": [8, 9]}
    monkeypatch.setattr(model, "tok_encode", lambda text, *_: ids[text])
    assert model._encode_pair("ca", "b") == ([8], [9])
    assert model._encode_pair("a", "b") == ([model.eot_token_id], [9])


def test_spaces_go_to_the_continuation(model: SavedLM, saved: SavedModel):
    for context in ("x = ", " "):
        before, after = model._encode_pair(context, "1")
        assert saved.tokenizer.decode(after) == " 1"
        assert saved.tokenizer.decode(before) == context.rstrip()
        assert before


def test_rolling_is_the_loss_of_the_document(model: SavedLM, small_run: Path):
    found = model.loglikelihood_rolling(
        asked("loglikelihood_rolling", *((text,) for text in (*TEXTS, ""))), disable_tqdm=True
    )
    scores = chomp_package.open_run(str(small_run)).score(TEXTS)
    assert found == [*(-score.nats for score in scores), 0.0]


def test_continuations_are_greedy_and_end_before_a_text(model: SavedLM, small_run: Path):
    whole = chomp_package.open_run(str(small_run)).generate("def ", max_tokens=24, temperature=0)
    assert len(whole) > 6
    until = whole[4:6]
    requests = asked(
        "generate_until",
        ("def ", {"until": [], "max_gen_toks": 24}),
        ("def ", {"until": until, "max_gen_toks": 24}),
        ("def ", {"until": ["never there", until], "max_gen_toks": 24, "temperature": 0.0}),
        ("def ", {"until": [], "max_gen_toks": 3, "do_sample": False, "temperature": 0.7}),
    )
    cut = whole[: whole.index(until)]
    found = model.generate_until(requests, disable_tqdm=True)
    assert found == [whole, cut, cut, whole[:3]]


def test_sampling_is_drawn_and_repeats(model: SavedLM):
    settings = {"until": [], "max_gen_toks": 24, "do_sample": True, "temperature": 1.5}
    requests = asked("generate_until", ("def ", settings), ("def ", settings))
    found = model.generate_until(requests, disable_tqdm=True)
    assert found[0] != found[1]
    assert model.generate_until(requests, disable_tqdm=True) == found


def test_answers_go_to_lm_evals_cache(model: SavedLM, monkeypatch: pytest.MonkeyPatch):
    kept: dict[str, Any] = {}
    hook = CacheHook(None)
    hook.dbdict = kept  # type: ignore[assignment]
    monkeypatch.setattr(model, "cache_hook", hook)
    model.loglikelihood(asked("loglikelihood", PAIRS[0]), disable_tqdm=True)
    model.loglikelihood_rolling(asked("loglikelihood_rolling", (TEXTS[0],)), disable_tqdm=True)
    model.generate_until(
        asked("generate_until", ("def ", {"until": ["\n"], "max_gen_toks": 2})), disable_tqdm=True
    )
    assert len(kept) == 3


ODD = "ÿ" * 15
ROWS: dict[str, list[dict[str, Any]]] = {
    "choice": [
        {
            "question": "def f(self):",
            "choices": ["x\n    return self", ODD],
            "answer": 0,
        },
        {"question": "import", "choices": [ODD, "os"], "answer": 1},
        {"question": "return", "choices": ["x", ODD], "answer": 1},
    ],
    "generate": [{"question": "def ", "answer": ""}, {"question": "class ", "answer": "\x00"}],
    "rolling": [{"text": text} for text in TEXTS],
}
KINDS: dict[str, dict[str, Any]] = {
    "choice": {
        "output_type": "multiple_choice",
        "doc_to_text": "{{question}}",
        "doc_to_choice": "{{choices}}",
        "doc_to_target": "{{answer}}",
        "metric_list": [{"metric": "acc"}],
    },
    "generate": {
        "output_type": "generate_until",
        "doc_to_text": "{{question}}",
        "doc_to_target": "{{answer}}",
        "generation_kwargs": {"until": ["\n"], "max_gen_toks": 8, "num_beams": 2},
        "metric_list": [{"metric": "exact_match"}],
    },
    "rolling": {
        "output_type": "loglikelihood_rolling",
        "doc_to_text": "",
        "doc_to_target": "{{text}}",
        "metric_list": [{"metric": "bits_per_byte"}],
    },
}


@pytest.fixture
def tasks(tmp_path: Path) -> Path:
    """Task files as users write them, over JSON lines."""
    for name, kind in KINDS.items():
        rows = tmp_path / f"{name}.jsonl"
        rows.write_text("".join(f"{json.dumps(row)}\n" for row in ROWS[name]), "utf-8")
        source = {
            "task": f"tiny_{name}",
            "dataset_path": "json",
            "dataset_kwargs": {
                "data_files": {"test": str(rows)},
                "cache_dir": str(tmp_path / "cache"),
            },
            "test_split": "test",
        }
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(source | kind), "utf-8")
    return tmp_path


def test_local_tasks_run_by_the_command(chomp: Callable[..., Any], small_run: Path, tasks: Path):
    names = ["tiny_choice", "tiny_generate", "tiny_rolling"]
    done = chomp("lm-eval", small_run, *names, "--tasks-dir", tasks, "--json")
    assert done.code == 0, done.err
    assert "generation_kwargs: num_beams changes nothing here" in done.err
    found = json.loads(done.out)
    assert (found["run"], found["step"]) == (str(small_run), 30)
    results = found["results"]
    assert sorted(results) == names
    assert results["tiny_choice"]["acc,none"] == pytest.approx(2 / 3)
    said = chomp_package.open_run(str(small_run))
    answers = [
        said.generate(row["question"], max_tokens=8, temperature=0) for row in ROWS["generate"]
    ]
    expected = [
        text.split("\n")[0] == row["answer"]
        for text, row in zip(answers, ROWS["generate"], strict=True)
    ]
    assert results["tiny_generate"]["exact_match,none"] == np.mean(expected)
    evaluated = chomp(
        "eval", small_run, "--files", tasks / "rolling.jsonl", "--per-document", "--json"
    )
    nats = sum(one["loss"] * one["targets"] for one in json.loads(evaluated.out)["per_document"])
    size = sum(len(text.encode()) for text in TEXTS)
    bits = results["tiny_rolling"]["bits_per_byte,none"]
    assert bits == pytest.approx(nats / np.log(2) / size, rel=1e-12)


def test_a_person_reads_lm_evals_table(chomp: Callable[..., Any], small_run: Path, tasks: Path):
    done = chomp(
        *("lm-eval", f"{small_run}:10", "tiny_choice", "--tasks-dir", tasks),
        *("--limit", 1, "--num-fewshot", 0),
    )
    assert done.code == 0, done.err
    lines = done.out.splitlines()
    assert lines[0] == f"run {small_run}, step 10"
    assert [line for line in lines if line.startswith("|tiny_choice")]


def test_what_is_not_there_is_said(chomp: Callable[..., Any], small_run: Path, tasks: Path):
    done = chomp("lm-eval", small_run, "tiny_choice", "tiny_nothing", "--tasks-dir", tasks)
    assert (done.code, done.out) == (2, "")
    assert f"tiny_nothing: no such task in {tasks} nor in lm_eval" in done.err
    (tasks / "choice.jsonl").unlink()
    done = chomp("lm-eval", small_run, "tiny_choice", "--tasks-dir", tasks)
    assert done.code == 2
    assert "tiny_choice: " in done.err and "choice.jsonl" in done.err
