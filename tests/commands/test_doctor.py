"""`chomp doctor`: findings that are true of this machine, and a config that is really tried."""

import json
import os
import platform

import jax
import psutil
import pytest


def findings(done) -> dict[str, list[dict]]:
    """The findings of `--json`, by name."""
    found: dict[str, list[dict]] = {}
    for check in json.loads(done.out):
        found.setdefault(check["name"], []).append(check)
    return found


@pytest.fixture(autouse=True)
def no_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether the hub answers here is not for the tests to depend on: port 9 refuses at once."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")


def test_the_machine(chomp, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = chomp("doctor")
    assert done.code == 0
    assert platform.python_version() in done.out and f"jax {jax.__version__}" in done.out
    assert f"{os.cpu_count()} processors" in done.out
    assert f"of {psutil.virtual_memory().total / 1e9:.1f}" in done.out
    assert "warning  network    the Hugging Face Hub (http://127.0.0.1:9) can't be" in done.out
    assert list(tmp_path.iterdir()) == []


def test_a_config_that_trains(chomp, config_file, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = config_file()
    found = findings(chomp("doctor", path, "--json"))
    for name in ("device", "tokenizer", "data", "step"):
        assert [check["state"] for check in found[name]] == ["ok"], found[name]
    assert "first batch 2 x 2 x 64" in found["data"][0]["found"]
    assert list(tmp_path.iterdir()) == [path]


def test_the_step_is_that_of_the_dry_run(chomp, config_file):
    path = config_file()
    loss = chomp("train", path, "--dry-run").out.partition("loss ")[2].split()[0]
    assert findings(chomp("doctor", path, "--json"))["step"][0]["found"].endswith(f"loss {loss}")


@pytest.mark.parametrize(
    ("override", "name", "words"),
    [
        ("data.files=[none.txt]", "data", "data.files: no file matches 'none.txt'"),
        ("train.seq_len=100", "config", "train.seq_len: must be a multiple of"),
        ("train.allow_cpu=false", "device", "no accelerator, only a CPU"),
        ("logging.run_dir=/proc/none/run", "disk", "/proc can't be written to"),
        ("data.text_key=body", "config", "data.text_key"),
    ],
)
def test_a_problem(chomp, config_file, override, name, words):
    if "run_dir" in override and os.getuid() == 0:
        pytest.skip("root may write anywhere")
    done = chomp("doctor", config_file(), "-o", override, "--json")
    assert done.code == 1
    (problem,) = [c for c in json.loads(done.out) if c["state"] == "problem"]
    assert problem["name"] == name and words in problem["found"]


def test_the_hub_is_a_problem_only_where_it_is_needed(chomp, config_file):
    done = chomp("doctor", config_file(data={"backend": "hf", "max_retries": 0}), "--json")
    assert done.code == 1
    assert findings(done)["network"][0]["state"] == "problem"


def test_wandb(chomp, config_file, monkeypatch, tmp_path):
    for name in ("WANDB_API_KEY", "WANDB_MODE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    config = config_file(logging={"wandb": {"enabled": True}})
    found = findings(chomp("doctor", config, "--json"))["W&B"][0]
    assert (found["state"], found["found"]) == ("problem", "not logged in")
    (tmp_path / ".netrc").write_text("machine api.wandb.ai login user password 123\n")
    (tmp_path / ".netrc").chmod(0o600)
    assert findings(chomp("doctor", config, "--json"))["W&B"][0]["state"] == "ok"
