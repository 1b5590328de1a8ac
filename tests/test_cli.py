import gc
import json
import os
import resource
import statistics
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
import yaml

from chomp.cli import main
from chomp.cli.program import run

PROGRAM = Path(sysconfig.get_path("scripts")) / "chomp"
HEAVY = ("jax", "numpy", "pydantic", "yaml", "rich", "optax", "orbax", "grain", "megalodon_jax")


def commands(group: click.Group = main, path: tuple[str, ...] = ("chomp",)) -> Iterator[Any]:
    for name, command in group.commands.items():
        yield (*path, name), command
        if isinstance(command, click.Group):
            yield from commands(command, (*path, name))


ALL = dict(commands())


def test_help_imports_nothing_heavy():
    script = (
        "import sys\nfrom chomp.cli import main\nmain(['--help'], standalone_mode=False)\n"
        f"print('LOADED', [m for m in {HEAVY} if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stdout.endswith("LOADED []\n"), done.stdout + done.stderr


def test_help_is_there_at_once():
    """At most 0.2 s; of processor time, since a test machine has other things to do."""
    seconds = []
    for _ in range(5):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([PROGRAM, "--help"], check=True, stdout=subprocess.DEVNULL)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        seconds.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    assert statistics.median(seconds) <= 0.2


def test_the_end_looks_for_no_garbage(monkeypatch: pytest.MonkeyPatch):
    """That among all objects of JAX takes the interpreter some tenths of a second."""
    monkeypatch.setattr(sys, "argv", ["chomp", "--version"])
    gc.unfreeze()
    with pytest.raises(SystemExit):
        run()
    assert gc.get_freeze_count() > 0


@pytest.mark.parametrize("path", [("chomp",), *ALL], ids=" ".join)
def test_every_command_has_help_with_an_example(chomp: Any, path: tuple[str, ...]):
    done = chomp(*path[1:], "--help")
    assert done.code == 0
    examples = [line.strip() for line in done.out.splitlines() if "chomp " in line]
    examples = [line for line in examples if " ".join(path) in line and "Usage" not in line]
    assert examples, done.out


def test_examples_in_the_help_are_valid_options():
    """Each example line parses: no option in it is unknown to its command."""
    for path, command in [(("chomp",), main), *ALL.items()]:
        for line in (command.help or "").splitlines():
            words = line.partition("chomp ")[2].split(" ")
            found: click.Command = main
            while isinstance(found, click.Group) and words[0] in found.commands:
                found = found.commands[words.pop(0)]
            options = {name for option in found.params for name in option.opts}
            used = {word for word in words if word.startswith("-") and word != "-"}
            assert used <= options, (path, line)


def test_the_version_is_the_packages(chomp: Any):
    from importlib.metadata import version

    assert chomp("--version").out == f"chomp {version('chomp')}\n"


@pytest.mark.parametrize(
    ("args", "word"),
    [
        (["train"], "CONFIG"),
        (["train", "x.yaml", "--resume", "latest"], "--run-dir"),
        (["train", "x.yaml", "--allow-change", "optim.lr"], "--resume"),
        (["trian"], "trian"),
        (["generate", "x", "--top-p", "0"], "--top-p"),
        (["generate", "x", "--samples", "0"], "--samples"),
    ],
)
def test_wrong_usage_is_exit_code_2(chomp: Any, args: list[str], word: str):
    done = chomp(*args)
    assert done.code == 2
    assert word in done.err
    assert done.out == ""


def test_each_problem_has_a_line_of_its_own_and_no_traceback(tmp_path: Path):
    config = tmp_path / "wrong.yaml"
    config.write_text("train: {stpes: 3, batch_size: 0, allow_cpu: true}\nmodle: {}\n")
    done = subprocess.run([PROGRAM, "train", config], capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stdout == ""
    lines = done.stderr.splitlines()
    assert len(lines) == 3
    assert all(line.startswith("error: ") for line in lines)
    for name in ("train.stpes", "train.batch_size", "modle"):
        assert sum(name in line for line in lines) == 1
    assert "did you mean 'train.steps'" in done.stderr


def test_a_problem_is_one_line_whatever_a_path_holds(chomp: Any, tmp_path: Path):
    done = chomp("train", tmp_path / "a\nerror: b.yaml")
    assert done.code == 2
    assert len(done.err.splitlines()) == 1


def test_a_config_from_a_pipe_is_kept_as_it_was(chomp: Any, config_file: Any, tmp_path: Path):
    """`chomp train <(sed ... config.yaml)`: what comes from a pipe comes once."""
    text = config_file().read_text("utf-8")
    reader, writer = os.pipe()
    os.write(writer, text.encode())
    os.close(writer)
    done = chomp("train", f"/dev/fd/{reader}", "--run-dir", tmp_path / "run")
    os.close(reader)
    assert done.code == 0, done.err
    assert (tmp_path / "run" / "config_original.yaml").read_text("utf-8") == text


def test_debug_shows_the_traceback(tmp_path: Path):
    command = [PROGRAM, "--debug", "config", "show", tmp_path / "missing.yaml"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode != 0
    assert "Traceback" in done.stderr
    assert "ConfigError" in done.stderr


def test_config_show_prints_what_loads_again(chomp: Any, config_file: Any, tmp_path: Path):
    done = chomp("config", "show", config_file(), "-o", "optim.lr=2e-4")
    assert done.code == 0
    values = yaml.safe_load(done.out)
    assert values["optim"]["lr"] == 2e-4
    assert values["checkpoint"]["max_to_keep"] == 3
    again = tmp_path / "again.yaml"
    again.write_text(done.out)
    assert chomp("config", "show", again).out == done.out


def test_config_schema_and_reference_are_printed(chomp: Any):
    assert "train" in json.loads(chomp("config", "schema").out)["properties"]
    assert "`train.seq_len`" in chomp("config", "reference").out


def test_folders_of_the_user_are_not_taken_for_packages(tmp_path: Path):
    for name in ("click", "datasets", "wandb"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("raise SystemExit('taken')")
    command = [sys.executable, "-m", "chomp", "--version"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_it_runs_from_any_folder_and_leaves_nothing_there(config_file: Any, tmp_path: Path):
    config = config_file()
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    command = [PROGRAM, "config", "show", config]
    subprocess.run(command, cwd=elsewhere, check=True, stdout=subprocess.DEVNULL)
    assert os.listdir(elsewhere) == []


@pytest.mark.parametrize("line", ["train c.yaml --run-dir {new}", "doctor"])
def test_a_current_folder_that_is_gone_is_one_line(
    chomp: Any, config_file: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, line: str
):
    config = config_file(data={"files": ["texts.jsonl"]})
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    words = [word.format(new=tmp_path / "new") for word in line.split()]
    done = chomp(*[config if word == "c.yaml" else word for word in words])
    assert (done.code, done.err) == (
        2,
        "error: the current folder has been removed; go to another: cd\n",
    )
