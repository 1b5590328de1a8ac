"""The launch recipes."""

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

EXAMPLES = Path(__file__).parent.parent / "examples"


def test_the_slurm_script_is_bash():
    checked = subprocess.run(["bash", "-n", EXAMPLES / "slurm.sh"], check=False)
    assert checked.returncode == 0


def test_options_of_the_recipes_exist(chomp: Any):
    known = set(re.findall(r"--[a-z][a-z-]+", chomp("train", "--help").out))
    for name in ("slurm.sh", "jobset.yaml"):
        lines = (EXAMPLES / name).read_text(encoding="utf-8").splitlines()
        used = {
            option
            for line in lines
            if not re.match(r"\s*#", line) and ("train" in line or "resume" in line)
            for option in re.findall(r"(?<![\w-])--[a-z][a-z-]+", line)
        }
        assert {"--run-dir", "--resume"} <= used <= known, name


def test_the_jobset_starts_as_many_processes_as_it_says():
    jobset = yaml.safe_load((EXAMPLES / "jobset.yaml").read_text(encoding="utf-8"))
    (job,) = jobset["spec"]["replicatedJobs"]
    spec = job["template"]["spec"]
    (container,) = spec["template"]["spec"]["containers"]
    environment = {entry["name"]: entry.get("value") for entry in container["env"]}
    assert spec["completionMode"] == "Indexed"
    assert int(environment["JAX_NUM_PROCESSES"]) == spec["parallelism"] == spec["completions"]


def test_processes_on_this_machine(config_file: Callable[..., Path], tmp_path: Path):
    command = [sys.executable, EXAMPLES / "local.py", "--processes", "2", "--devices", "1"]
    run = [config_file("dummy"), "--run-dir", tmp_path / "run"]
    ended = subprocess.run([*command, *run], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "[0] finished   after step 4 of 4" in ended.stdout
    assert (tmp_path / "run" / "metrics.jsonl").exists()
    wrong = subprocess.run([*command, *run], capture_output=True, text=True, check=False)
    assert wrong.returncode == 2, wrong.stdout + wrong.stderr
