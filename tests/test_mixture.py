"""A run over several sources, as a user has it: rows, evaluation, trace, resume."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

pytestmark = pytest.mark.usefixtures("share_programs")

Values = dict[str, Any]


@pytest.fixture(scope="module")
def mixed(
    tmp_path_factory: pytest.TempPathFactory,
    texts: list[str],
    values: Callable[..., Values],
    chomp: Any,
) -> Callable[..., Values]:
    """Return a config's values: plain files, JSON lines and prepared tokens, and a stage."""
    folder = tmp_path_factory.mktemp("mixed")
    (folder / "notes").mkdir()
    for number, text in enumerate(texts[:40]):
        (folder / "notes" / f"{number:02}.txt").write_text(text, "utf-8")
    lines = (json.dumps({"body": text}) + "\n" for text in texts[40:90])
    (folder / "web.jsonl").write_text("".join(lines), "utf-8")
    lines = (json.dumps({"text": text}) + "\n" for text in texts[90:140])
    (folder / "code.jsonl").write_text("".join(lines), "utf-8")
    (folder / "later.txt").write_text("".join(texts[140:]), "utf-8")
    prepare = folder / "prepare.yaml"
    sections = {"data": {"files": [str(folder / "code.jsonl")]}, "train": {"eval_every": 4}}
    prepare.write_text(yaml.safe_dump(values(**sections)))
    done = chomp("data", "prepare", prepare, folder / "code")
    assert done.code == 0, done.err

    def make(**sections: Values) -> Values:
        data = {
            "sources": [
                {"files": [str(folder / "notes" / "*.txt")], "weight": 5},
                {"files": [str(folder / "web.jsonl")], "text_key": "body", "weight": 3},
                {"tokens_dir": str(folder / "code"), "weight": 2},
            ],
            "stages": [{"from_step": 5, "weights": {"notes": 0, "web": 1, "code": 1}}],
            "eval_sets": [{"name": "later", "files": [str(folder / "later.txt")]}],
        }
        train = {"steps": 8, "log_every": 2, "eval_every": 4}
        made = values("dummy", data=data, train=train, checkpoint={"save_every": 4}, **sections)
        del made["data"]["files"], made["data"]["backend"]
        return made

    return make


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, mixed: Any, chomp: Any) -> Path:
    folder = tmp_path_factory.mktemp("run")
    (folder / "config.yaml").write_text(yaml.safe_dump(mixed()))
    done = chomp("train", folder / "config.yaml", "--run-dir", folder / "run")
    assert done.code == 0, done.err
    assert "3 sources (notes 50%, web 30%, code 20% until step 4)" in done.out
    assert "evaluation later: 1 document" in done.out
    return folder / "run"


def test_rows_count_the_targets_of_each_source(run: Path, read_rows: Any):
    rows = read_rows(run)
    names = ("notes", "web", "code")
    for row, before in zip(rows, [{"tokens_seen": 0}, *rows], strict=False):
        targets = [row[f"targets/{name}"] for name in names]
        assert sum(targets) == row["tokens_seen"] - before["tokens_seen"]
        assert (targets[0] == 0) == (row["step"] > 4)
    assert rows[-1]["epoch/web"] >= 0 and "epoch/notes" not in rows[-1]


def test_each_set_has_its_loss_and_eval_gives_the_same(run: Path, read_rows: Any, chomp: Any):
    row = read_rows(run)[-1]
    found = json.loads(chomp("eval", run, "--json").out)
    assert found["loss"] == row["eval_loss"] and found["targets"] == row["eval_targets"]
    assert list(found["by_name"]) == ["notes", "web", "code", "later"]
    for name, of_set in found["by_name"].items():
        assert of_set["loss"] == row[f"eval_loss/{name}"]
        assert of_set["bits_per_byte"] == row[f"eval_bits_per_byte/{name}"]
    counted = [found["by_name"][name] for name in ("notes", "web", "code")]
    assert sum(of_set["targets"] for of_set in counted) == found["targets"]
    assert "later" in chomp("eval", run).out


def test_a_step_is_traced_to_documents_of_its_sources(run: Path, chomp: Any):
    found = json.loads(chomp("trace", run, "--step", 2, "--json").out)
    sources = {Path(each["source"]).name for each in found["documents"]}
    assert {"web.jsonl", "code"} < sources and any(name.endswith(".txt") for name in sources)
    assert all(each["text"] for each in found["documents"])


def test_a_step_is_traced_after_a_resume_with_sources_in_another_order(
    run: Path, mixed: Any, chomp: Any, tmp_path: Path
):
    shutil.copytree(run, tmp_path / "branch")
    changed = mixed()
    changed["data"]["sources"].reverse()
    changed["train"]["steps"] = 9
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(changed))
    command = ("train", tmp_path / "config.yaml", "--run-dir", tmp_path / "branch")
    done = chomp(*command, "--resume", "latest")
    assert done.code == 0, done.err
    for step in ("2", "9"):
        found = json.loads(chomp("trace", tmp_path / "branch", "--step", step, "--json").out)
        assert all(each["text"] for each in found["documents"])
        if step == "2":
            assert found == json.loads(chomp("trace", run, "--step", step, "--json").out)


def test_a_resume_with_other_weights_is_refused_unless_allowed(
    run: Path, mixed: Any, chomp: Any, tmp_path: Path, read_rows: Any
):
    done = chomp("branch", f"{run}:4", tmp_path / "branch")
    assert done.code == 0, done.err
    changed = mixed()
    changed["data"]["sources"][1]["weight"] = 1
    changed["data"]["stages"] = []
    changed["data"]["eval_sets"].append({**changed["data"]["eval_sets"][0], "name": "more"})
    config = tmp_path / "config.yaml"
    config.write_text(json.dumps(changed))
    command = ("train", config, "--run-dir", tmp_path / "branch", "--resume", "latest")
    done = chomp(*command)
    assert done.code != 0
    assert "data.sources.web.weight: was 3.0, now 1.0" in done.err
    assert "--allow-change data.sources --allow-change data.stages" in done.err
    assert "eval_sets" not in done.err and "content" not in done.err
    done = chomp(*command, "--allow-change", "data.sources", "--allow-change", "data.stages")
    assert done.code == 0, done.err
    rows = read_rows(tmp_path / "branch")
    assert rows[-1]["targets/notes"] > rows[-1]["targets/web"] > 0
    assert "eval_loss/more" in rows[-1]


def test_a_mixture_is_prepared_source_by_source(mixed: Any, chomp: Any, tmp_path: Path):
    config = tmp_path / "config.yaml"
    config.write_text(yaml.safe_dump(mixed()))
    done = chomp("data", "prepare", config, tmp_path / "tokens")
    assert done.code == 2
    assert "data.sources: each is prepared by itself" in done.err


def test_what_a_source_lacks_is_said_at_once(mixed: Any, chomp: Any, tmp_path: Path):
    values = mixed()
    values["data"]["sources"][0]["files"] = [str(tmp_path / "none" / "*.txt")]
    values["data"]["sources"][2]["tokens_dir"] = str(tmp_path / "nowhere")
    config = tmp_path / "config.yaml"
    config.write_text(yaml.safe_dump(values))
    done = chomp("train", config, "--run-dir", tmp_path / "run")
    assert done.code == 2
    assert "none/*.txt" in done.err and "nowhere" in done.err
    assert not (tmp_path / "run").exists()


def test_a_rewind_leaves_out_the_batch_of_one_source(
    values: Callable[..., Values], chomp: Any, tmp_path: Path, read_rows: Any
):
    """A stage of one batch of noise: without it, all is as if the source weren't there."""
    bad, steps = 21, 30
    rng = np.random.default_rng(0)
    texts = {
        "easy": ["abc" * 21] * 200,  # a row each, with its EOS
        "noise": ["".join(map(chr, rng.integers(33, 127, 63))) for _ in range(20)],
    }
    for name, documents in texts.items():
        lines = (json.dumps({"text": text}) + "\n" for text in documents)
        (tmp_path / f"{name}.jsonl").write_text("".join(lines), "utf-8")

    def train(name: str, **noise: Any) -> Any:
        sources = [
            {"name": name, "files": [str(tmp_path / f"{name}.jsonl")], "weight": 1}
            for name in (texts if noise else ["easy"])
        ]
        made = values(
            "dummy",
            data={"sources": sources, "shuffle": False, "max_eval_samples": 1, **noise},
            train={
                "steps": steps,
                "log_every": 5,
                "on_spike": "rewind",
                "spike_window": 16,
                "spike_threshold": 5.0,
            },
            optim={"lr": 0.1},
            checkpoint={"save_every": 8},
        )
        del made["data"]["files"], made["data"]["backend"]
        (tmp_path / "config.yaml").write_text(yaml.safe_dump(made))
        return chomp("train", tmp_path / "config.yaml", "--run-dir", tmp_path / name)

    stages = [
        {"from_step": 1, "weights": {"easy": 1, "noise": 0}},
        {"from_step": bad, "weights": {"easy": 0, "noise": 1}},
        {"from_step": bad + 1, "weights": {"easy": 1, "noise": 0}},
    ]
    done = train("rewound", stages=stages)
    assert done.code == 0, done.err
    assert f"going back to step 16, and leaving out batch {bad}\n" in done.out
    assert train("clean").code == 0
    for row, expected in zip(
        read_rows(tmp_path / "rewound"), read_rows(tmp_path / "clean"), strict=True
    ):
        for key in ("step", "loss", "grad_norm", "tokens_seen"):
            assert row[key] == expected[key]


def test_a_mixture_begins_with_another_run_s_weights(
    run: Path, mixed: Any, chomp: Any, tmp_path: Path, read_rows: Any
):
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(mixed()))
    new = tmp_path / "new"
    done = chomp("train", tmp_path / "config.yaml", "--run-dir", new, "--init-from", f"{run}:8")
    assert done.code == 0, done.err
    before, after = read_rows(run), read_rows(new)
    assert after[0]["loss"] < before[0]["loss"]
    # The same batches from the beginning, whatever the other run has read.
    assert [row["tokens_seen"] for row in after] == [row["tokens_seen"] for row in before]
