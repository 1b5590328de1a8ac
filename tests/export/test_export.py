"""`chomp export`, as a user calls it."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
import yaml
from hub_server import HubServer
from megalodon_jax import load_checkpoint
from safetensors.numpy import load_file

from chomp.commands.saved_model import open_run_config, restore_model
from chomp.export.weights import logits_of
from chomp.run.run_folder import RunFolder
from chomp.system.console import Console


class NoLines(Console):
    """Fails where a line is shown."""

    def message(self, text: str) -> None:
        pytest.fail(text)


NO_LINES = NoLines()
IDS = np.arange(50)[None] * 7 % 250


def original(run: Path, step: str = "latest") -> np.ndarray:
    folder = RunFolder(run)
    saved = restore_model(open_run_config(folder, False, NO_LINES), folder, step, NO_LINES)
    return logits_of(saved.params, IDS)


@pytest.fixture
def exported(chomp: Any, small_run: Path, tmp_path: Path):
    """Export the small run; the folder, and what was printed."""

    def export(*args: object, run: object = small_run) -> tuple[Path, str]:
        done = chomp("export", run, tmp_path / "out", *args)
        assert done.code == 0, done.err
        assert done.err == ""
        return tmp_path / "out", done.out

    return export


def test_a_hugging_face_folder(exported: Any, small_run: Path):
    folder, out = exported()
    assert f"written    {folder}" in out and "step 30" in out
    assert {path.name for path in folder.iterdir()} == {
        *("README.md", "chomp_config.json", "config.json", "generation_config.json"),
        *("configuration_megalodon.py", "modeling_megalodon.py", "model.safetensors"),
        *("tokenizer.json", "tokenizer_config.json", "metrics.jsonl"),
    }
    config = json.loads((folder / "config.json").read_text())
    assert config["auto_map"]["AutoModelForCausalLM"].split(".")[0] == "modeling_megalodon"
    assert (config["model_dim"], config["dtype"], config["eos_token_id"]) == (32, "float32", 2)
    assert load_file(folder / "model.safetensors")["embed.weight"].shape == (384, 32)
    assert json.loads((folder / "chomp_config.json").read_text())["train"]["steps"] == 30
    card = (folder / "README.md").read_text()
    assert "license" not in yaml.safe_load(card.split("---")[1])
    assert "## License\n\nNone was given." in card


def test_the_card_says_what_is_in_the_run(exported: Any, small_run: Path, read_rows: Any):
    folder, _ = exported("--license", "cc-by-4.0", run=f"{small_run}:20")
    card = (folder / "README.md").read_text()
    assert yaml.safe_load(card.split("---")[1])["license"] == "cc-by-4.0"
    assert "## License\n\ncc-by-4.0.\n" in card
    row = next(row for row in read_rows(small_run) if row["step"] == 20)
    assert f"| 20 | {row['loss']:.4f} |" in card
    assert "| steps | 20 of 30 |" in card and "| 30 |" not in card
    assert f"| tokens trained on | {row['tokens_seen']:,} |" in card
    assert "| chomp |" in card
    assert read_rows(folder)[-1] == row


@pytest.mark.torch
def test_transformers_loads_it_in_another_python(exported: Any, small_run: Path, tmp_path: Path):
    pytest.importorskip("torch", reason="needs the extra `export`")
    folder, out = exported()
    assert "logits differ from JAX's by at most" in out and "32 of 32 greedy tokens" in out
    code = f"""
import json, torch
from transformers import AutoModelForCausalLM, AutoTokenizer
model = AutoModelForCausalLM.from_pretrained({str(folder)!r}, trust_remote_code=True)
tokenizer = AutoTokenizer.from_pretrained({str(folder)!r}, trust_remote_code=True)
inputs = tokenizer(["def f", "import os, sys"], return_tensors="pt", padding=True)
texts = [model.generate(**inputs, max_new_tokens=24, do_sample=False, use_cache=use)
         for use in (True, False)]
assert torch.equal(*texts)
logits = model(torch.tensor({IDS.tolist()})).logits
print(json.dumps([logits.tolist(), tokenizer.batch_decode(texts[0], skip_special_tokens=True)]))
"""
    environment = {**os.environ, "HF_HOME": str(tmp_path / "hf"), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment
    )
    assert done.returncode == 0, done.stderr
    logits, texts = json.loads(done.stdout)
    np.testing.assert_allclose(logits, original(small_run), atol=1e-5, rtol=0)
    assert texts == [greedy(small_run, "def f"), greedy(small_run, "import os, sys")]


def greedy(run: Path, prompt: str) -> str:
    from chomp.commands.generate import GenerateRequest, generate_text
    from chomp.generation import Sampling

    sampling = Sampling(max_tokens=24, temperature=0.0)
    request = GenerateRequest(run, "latest", prompt, sampling, seed=0, samples=1)
    return "".join(generate_text(request, NO_LINES)).removesuffix("\n")


def test_without_pytorch_it_says_that_nothing_was_compared(
    exported: Any, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setitem(sys.modules, "torch", None)
    folder, out = exported()
    assert "not compared with PyTorch, which isn't installed" in out
    assert "not compared with PyTorch" in (folder / "README.md").read_text()


def test_without_transformers_it_is_written_all_the_same(
    chomp: Any, small_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setitem(sys.modules, "transformers", None)
    done = chomp("export", small_run, tmp_path / "out")
    assert (done.code, done.err.count("\n")) == (0, 1)
    assert "needs the package transformers (pip install 'chomp[export]')" in done.err
    assert "not compared with PyTorch" in done.out
    assert load_file(tmp_path / "out" / "model.safetensors")


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_megalodon_jax_loads_its_format(exported: Any, small_run: Path, dtype: str):
    folder, out = exported("--format", "jax", "--dtype", dtype)
    assert "equal bit for bit" in out
    model = load_checkpoint(folder / "model.safetensors", key=jax.random.PRNGKey(0))
    assert model.model.embed.weight.dtype == dtype
    exact = {"float32": 0.0, "bfloat16": 0.1}[dtype]
    np.testing.assert_allclose(logits_of(model, IDS), original(small_run), atol=exact, rtol=0)


@pytest.mark.torch
def test_the_released_format_loads(exported: Any, small_run: Path):
    torch = pytest.importorskip("torch", reason="needs the extra `export`")
    folder, out = exported("--format", "upstream", run=f"{small_run}:10")
    assert "equal bit for bit" in out
    state = torch.load(folder / "consolidated.pth", weights_only=True)
    assert "layers.0.mega.cema.gamma" in state and "output.final_norm.prior_count" in state


def test_steps_differ(exported: Any, chomp: Any, small_run: Path, tmp_path: Path):
    folder, _ = exported("--format", "jax", run=f"{small_run}:10")
    model = load_checkpoint(folder / "model.safetensors", key=jax.random.PRNGKey(0))
    np.testing.assert_array_equal(logits_of(model, IDS), original(small_run, "10"))
    done = chomp("export", f"{small_run}:9", tmp_path / "other")
    assert (done.code, "saved steps: 10, 20, 30" in done.err) == (2, True)


def test_what_is_there_stays_and_nothing_is_left_of_a_failure(
    chomp: Any, small_run: Path, tmp_path: Path
):
    out = tmp_path / "out"
    out.mkdir()
    (out / "mine").write_text("x")
    done = chomp("export", small_run, out)
    assert (done.code, "isn't an empty folder" in done.err) == (2, True)
    assert [path.name for path in out.iterdir()] == ["mine"]
    copy = tmp_path / "copy"
    shutil.copytree(small_run, copy)
    shutil.rmtree(copy / "checkpoints")
    done = chomp("export", copy, tmp_path / "new")
    assert (done.code, "has no checkpoints" in done.err) == (2, True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["copy", "out"]


def test_an_empty_folder_is_filled(exported: Any, tmp_path: Path):
    (tmp_path / "out").mkdir()
    folder, _ = exported("--format", "jax")
    assert (folder / "model.safetensors").exists()


def test_a_full_disk_is_one_line(
    chomp: Any, small_run: Path, tmp_path: Path, files_of_at_most: Any
):
    with files_of_at_most(20_000):
        done = chomp("export", small_run, tmp_path / "out")
    assert (done.code, "can't be written" in done.err) == (2, True), done.err
    assert list(tmp_path.iterdir()) == []


def test_the_dummy_can_not_be_exported(chomp: Any, config_file: Any, tmp_path: Path):
    run = tmp_path / "run"
    assert chomp("train", config_file(), "--run-dir", run).code == 0
    done = chomp("export", run, tmp_path / "out")
    assert (done.code, "the dummy model can't be exported" in done.err) == (2, True)


@pytest.mark.parametrize(
    ("option", "value", "said"),
    [
        ("--push", "first", "must be USER/NAME"),
        ("--license", "", "must be the name of a license, such as apache-2.0 (got '')"),
        ("--license", "mit\ntags: []", "must be the name of a license"),
    ],
)
def test_what_is_wrong_is_refused_before_anything_is_written(
    chomp: Any, small_run: Path, tmp_path: Path, option: str, value: str, said: str
):
    done = chomp("export", small_run, tmp_path / "out", option, value)
    assert (done.code, said in done.err) == (2, True), done.err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("refused", [False, True])
def test_push(small_run: Path, tmp_path: Path, refused: bool):
    """To a server on this machine that speaks the hub's protocol."""
    with HubServer(refused=refused) as hub:
        environment = {**os.environ, "HF_ENDPOINT": hub.url, "HF_TOKEN": "hf_x"}
        environment["HF_HOME"] = str(tmp_path / "hf")
        command = [sys.executable, "-m", "chomp", "export", small_run, tmp_path / "out"]
        command += ["--format", "jax", "--push", "me/first"]
        done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert (tmp_path / "out" / "README.md").exists()
    if refused:
        assert done.returncode == 1
        assert done.stderr.count("error: ") == 1 and "hf upload me/first" in done.stderr
        return
    assert done.returncode == 0, done.stderr
    assert "jax_plugins" not in done.stderr  # of the extra `plan`, which finds no GPU
    assert "pushed     " in done.stdout
    assert hub.created == [("first", "me", True)]
    files = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    assert hub.files == files
