"""The launch recipes of `examples/`."""

import os
import re
import runpy
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from chomp.cli.train import train
from chomp.distributed.cluster import ProcessInfo, find_process

EXAMPLES = Path(__file__).parents[1] / "examples"
SLURM, JOBSET, LOCAL = (EXAMPLES / name for name in ("slurm.sh", "jobset.yaml", "local.py"))
DOCS = EXAMPLES.parent / "docs" / "scaling.md"


def comments_removed(path: Path) -> str:
    return re.sub(r"^\s*#.*$", "", path.read_text(encoding="utf-8"), flags=re.MULTILINE)


@pytest.mark.parametrize("path", [SLURM, JOBSET, LOCAL], ids=lambda path: path.name)
def test_the_options_exist(path: Path) -> None:
    known = CliRunner().invoke(train, ["--help"]).output
    of_others = {"--kill-on-bad-exit", "--cpus-per-task", "--devices"}
    options = set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", comments_removed(path))) - of_others
    assert options
    assert {option for option in options if option not in known} == set()


@pytest.mark.parametrize("path", [SLURM, JOBSET, LOCAL], ids=lambda path: path.name)
def test_the_docs_explain_it(path: Path) -> None:
    assert f"examples/{path.name}" in DOCS.read_text(encoding="utf-8")


@pytest.fixture
def submit(tmp_path: Path) -> Callable[..., tuple[int, list[str], list[str]]]:
    """Run the SLURM script with programs of ours as srun and scontrol.

    Returns its exit code, the arguments of srun and those of scontrol.
    """
    for name, code in ("srun", "$CODE"), ("scontrol", "0"):
        program = tmp_path / name
        program.write_text(
            f'#!/bin/sh\nprintf "%s\\n" "$@" > {tmp_path}/{name}.args\nexit {code}\n'
        )
        program.chmod(0o755)

    def run(code: int, **environment: str) -> tuple[int, list[str], list[str]]:
        ours = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "CODE": str(code), "CHOMP": "chomp"}
        ours |= {"SLURM_JOB_ID": "7", "SLURM_CPUS_PER_TASK": "2"}
        command = ["bash", str(SLURM), "my config.yaml", "-o", "train.steps=5"]
        done = subprocess.run(command, env=ours | environment, cwd=tmp_path, capture_output=True)
        assert done.stderr == b""
        files = (tmp_path / f"{name}.args" for name in ("srun", "scontrol"))
        srun, scontrol = (f.read_text().splitlines() if f.exists() else [] for f in files)
        return done.returncode, srun, scontrol

    return run


def test_a_slurm_job_trains_and_goes_on(submit: Callable[..., Any], tmp_path: Path) -> None:
    code, srun, scontrol = submit(0)
    start = srun.index("chomp")
    assert srun[start:] == [
        *("chomp", "train", "my config.yaml", "-o", "train.steps=5", "--run-dir", "runs/slurm-7")
    ]
    assert code == 0 and not scontrol
    (tmp_path / "runs/slurm-7").mkdir(parents=True)
    (tmp_path / "runs/slurm-7/config_original.yaml").touch()
    _, srun, _ = submit(0)
    assert srun[-2:] == ["--resume", "latest"]


@pytest.mark.parametrize(("code", "again"), [(143, True), (75, True), (1, False), (130, False)])
def test_a_slurm_job_is_queued_again(code: int, again: bool, submit: Callable[..., Any]) -> None:
    found, _, scontrol = submit(code)
    assert found == code
    assert scontrol == (["requeue", "7"] if again else [])


def test_a_slurm_job_is_not_queued_for_ever(submit: Callable[..., Any]) -> None:
    assert submit(75, SLURM_RESTART_COUNT="50")[2] == []


def jobset() -> dict[str, Any]:
    return yaml.safe_load(JOBSET.read_text(encoding="utf-8"))


def test_the_pods_of_a_jobset_find_each_other() -> None:
    manifest = jobset()
    (replicated,) = manifest["spec"]["replicatedJobs"]
    job = replicated["template"]["spec"]
    (container,) = job["template"]["spec"]["containers"]
    environment = {one["name"]: one["value"] for one in container["env"]}
    assert job["parallelism"] == job["completions"]
    place = find_process(None, None, 1, environment)
    name = manifest["metadata"]["name"]
    host = f"{name}-{replicated['name']}-0-0.{name}"
    port = container["ports"][0]["containerPort"]
    assert place == ProcessInfo(f"{host}:{port}", job["parallelism"], 1)


@pytest.mark.parametrize("resumed", [False, True])
def test_a_pod_trains_and_goes_on(resumed: bool, tmp_path: Path) -> None:
    spec = jobset()["spec"]["replicatedJobs"][0]["template"]["spec"]["template"]["spec"]
    (container,) = spec["containers"]
    chomp = tmp_path / "chomp"
    chomp.write_text('#!/bin/sh\necho "$@"\n')
    chomp.chmod(0o755)
    if resumed:
        (tmp_path / "config_original.yaml").touch()
    environment = {one["name"]: one["value"] for one in container["env"]}
    environment |= {"PATH": f"{tmp_path}:{os.environ['PATH']}", "RUN_DIR": str(tmp_path)}
    command = [*container["command"], *container["args"]]
    done = subprocess.run(
        command, env=environment | {"JOB_COMPLETION_INDEX": "1"}, capture_output=True, text=True
    )
    resume = " --resume latest" if resumed else ""
    expected = f"train /runs/config.yaml --run-dir {tmp_path}{resume} --process-id 1\n"
    assert (done.stdout, done.stderr) == (expected, "")


def test_wrong_input_ends_a_jobset_at_once() -> None:
    spec = jobset()["spec"]
    (ended,) = spec["replicatedJobs"][0]["template"]["spec"]["podFailurePolicy"]["rules"]
    assert (ended["action"], ended["onExitCodes"]["values"]) == ("FailJob", [2])
    (rule,) = spec["failurePolicy"]["rules"]
    assert (rule["action"], rule["onJobFailureReasons"]) == ("FailJobSet", ["PodFailurePolicy"])


@pytest.fixture
def local(compile_cache: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Start the local launcher with two processes; what still runs at the end is stopped."""
    started: list[subprocess.Popen[str]] = []

    def run(*args: object) -> subprocess.Popen[str]:
        command = [sys.executable, str(LOCAL), "--processes", "2", "--devices", "2"]
        pipe = subprocess.PIPE
        command += map(str, args)
        started.append(subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True))
        return started[-1]

    yield run
    for process in started:
        if process.poll() is None:
            process.terminate()
            process.communicate(timeout=120)


def test_the_local_launcher_ends_what_outlives_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whichever of the processes fails, and however."""
    wait = runpy.run_path(str(LOCAL))["wait"]
    monkeypatch.setitem(wait.__globals__, "GRACE", 0.1)
    for last in "import os; os.kill(os.getpid(), 9)", "raise SystemExit(75)":
        programs = "import time; time.sleep(100)", last
        processes = [subprocess.Popen([sys.executable, "-c", program]) for program in programs]
        assert wait(processes) == (137 if "kill" in last else 75)
        assert processes[0].returncode == -signal.SIGKILL


def test_the_local_launcher_passes_errors_on(local: Callable[..., Any], tmp_path: Path) -> None:
    process = local(tmp_path / "missing.yaml")
    out, err = process.communicate(timeout=100)
    assert process.returncode == 2, err
    for number in range(2):
        assert re.search(rf"^\[{number}\] error: .*missing\.yaml", out, re.MULTILINE), out


def test_the_local_launcher_stops_a_run(
    local: Callable[..., Any], config_file: Callable[..., Path], read_rows: Callable, tmp_path: Path
) -> None:
    """SIGTERM to the launcher has both processes save and stop."""
    run = tmp_path / "run"
    process = local(
        config_file(
            train={"steps": 100_000, "batch_size": 4},
            data={"repeat": True},
            parallel={"fsdp": 2},
            logging={"console_use_rich": False},
        ),
        "--run-dir",
        run,
    )
    metrics = run / "metrics.jsonl"
    deadline = time.time() + 100
    while not (metrics.exists() and metrics.stat().st_size):
        assert time.time() < deadline and process.poll() is None, process.communicate()
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=100)
    assert process.returncode == 128 + signal.SIGTERM, (out, err)
    assert "[0] stopped    after step" in out
    assert (run / "checkpoints" / str(read_rows(run)[-1]["step"])).exists()
