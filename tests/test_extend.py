"""What users add from modules of their own: the examples of the page, as they are printed."""

import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from chomp.config.registry import REGISTRIES
from chomp.errors import ConfigError
from chomp.models import register_model

PAGE = Path(__file__).parents[1] / "docs" / "how-to" / "extend.md"
FILE = re.compile(r"^```(?:python|yaml)\n# (\S+)\n(.*?)^```", re.DOTALL | re.MULTILINE)
COMMAND = re.compile(r"^```bash\n(.*?)^```", re.DOTALL | re.MULTILINE)


@pytest.fixture
def page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder with the page's files; what they register is forgotten at the end."""
    for name, text in FILE.findall(PAGE.read_text("utf-8")):
        (tmp_path / name).write_text(text, "utf-8")
    for registry in REGISTRIES.values():
        monkeypatch.setattr(registry, "_registered", {})
    monkeypatch.setattr("chomp.system.plugins._loaded", {})
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def run_printed(chomp: Callable[..., Any], page: Path, compile_cache: Path) -> Callable[..., Any]:
    """Run the page's commands that name a word."""

    def run(word: str) -> list[Any]:
        done = []
        for line in "".join(COMMAND.findall(PAGE.read_text("utf-8"))).splitlines():
            if word in line and line.startswith("chomp "):
                cache = ["-o", f"runtime.compile_cache={compile_cache}"]
                done.append(chomp(*shlex.split(line)[1:], *cache))
                assert done[-1].code == 0, done[-1]
        return done

    return run


def rows_of(run: Path) -> Iterator[dict[str, Any]]:
    return map(json.loads, (run / "metrics.jsonl").read_text().splitlines())


def test_a_callback_adds_to_the_metrics(page: Path):
    here = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "weight_norm.py"], env=here, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    norms = [row["weight_norm"] for row in rows_of(page / "runs/norms")]
    assert len(norms) == 4 and all(norm > 1 for norm in norms)


def test_a_tracker_gets_the_rows(page: Path, run_printed: Callable[..., Any]):
    assert len(run_printed("loss_table.py")) == 1
    table = (page / "runs/table/loss.csv").read_text().splitlines()
    expected = [f"{row['step']},{row['loss']}" for row in rows_of(page / "runs/table")]
    assert table == expected and len(table) == 4


def test_a_source_gives_the_documents(
    page: Path, run_printed: Callable[..., Any], chomp: Callable[..., Any]
):
    assert len(run_printed("sums.py")) == 1
    traced = chomp("trace", "runs/sums", "--json", "--plugin", "./sums.py")
    documents = json.loads(traced.out)["documents"]
    assert {document["source"] for document in documents} == {"sums"}
    for document in documents:
        left, right = divmod(document["row"], 100)
        assert document["text"] == f"{left} + {right} = {left + right}"
    refused = chomp(
        *("train", "--run-dir", "runs/sums", "--resume", "latest", "--plugin", "./sums.py"),
        *("-o", "data.options.count=6000", "-o", "train.steps=30"),
    )
    assert refused.code == 2
    assert "data.options.count: was 5000, now 6000" in refused.err
    assert "--allow-change data.options\n" in refused.err


def test_a_model_is_trained_and_resumed(
    page: Path, run_printed: Callable[..., Any], chomp: Callable[..., Any]
):
    start, resumed = run_printed("--plugin ./trigram.py")
    assert "model      trigram, " in start.out
    assert f"--resume latest --plugin {page}/trigram.py -o train.steps=40\n" in start.out
    assert "resumed    after step 20" in resumed.out
    losses = [row["loss"] for row in rows_of(page / "runs/trigram")]
    assert losses[-1] < losses[0]
    refused = chomp("generate", "runs/trigram", "--prompt", "a", "--plugin", "./trigram.py")
    assert "the trigram model can't generate" in refused.err


def test_a_resume_without_the_module_is_refused(
    page: Path,
    run_printed: Callable[..., Any],
    chomp: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
):
    run_printed("--plugin ./trigram.py -o model.backend")
    for registry in REGISTRIES.values():  # as in a new process
        monkeypatch.setattr(registry, "_registered", {})
    refused = chomp("train", "--run-dir", "runs/trigram", "--resume", "latest")
    assert refused.code == 2
    assert refused.err in PAGE.read_text("utf-8")
    assert refused.err.count("\n") == 1


def test_muon_takes_the_matrices_of_a_registered_model(page: Path, chomp: Callable[..., Any]):
    done = chomp(
        *("train", "my.yaml", "--plugin", "./trigram.py", "--dry-run"),
        *("-o", "model.backend=trigram", "-o", "optim.name=muon"),
    )
    assert "parameters by update: muon 2 " in done.out, done
    assert "adamw 1 " in done.out


def test_names_of_chomp_stay():
    with pytest.raises(ConfigError, match="'megalodon' can't be registered: it is chomp's own"):
        register_model("megalodon", lambda config, **keys: None)  # pyright: ignore


@pytest.mark.parametrize(
    ("module", "message"),
    [
        ("./nowhere.py", "--plugin ./nowhere.py: there is no such file"),
        ("nowhere", "--plugin nowhere: no module of this name is installed; for a file give"),
    ],
)
def test_modules_that_are_not_there(chomp: Callable[..., Any], module: str, message: str):
    done = chomp("config", "show", "my.yaml", "--plugin", module)
    assert done.code == 2
    assert done.err.startswith(f"error: {message}")


def test_chomp_is_imported_in_no_time():
    code = "import chomp, sys; print(sorted({'jax', 'pydantic', 'yaml'} & {*sys.modules}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "[]\n", done
