import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from chomp.checkpoint.compatibility import changes
from chomp.commands.status import read_status
from chomp.commands.status_lines import duration, status_lines
from chomp.errors import ResumeError
from chomp.run.heartbeat import Heartbeat, Phase, read_heartbeat
from chomp.run.record import EventKind
from chomp.run.recorder import RunRecorder
from chomp.system.console import Console


def begin(folder: Path, config: dict[str, Any] | None = None) -> tuple[RunRecorder, Heartbeat]:
    """Make a run folder in which this process trains."""
    folder.mkdir(exist_ok=True)
    config = config or {"train": {"steps": 100}}
    (folder / "config_original.yaml").write_text("train: {steps: 100}\n")
    (folder / "config_resolved.json").write_text(json.dumps(config))
    recorder = RunRecorder(folder / "run.json", folder / "heartbeat", Console())
    recorder.start(time=time.time() - 60, versions={}, config=config, compare=changes)
    return recorder, Heartbeat(folder / "heartbeat", start=recorder.number)


def row(step: int, **values: Any) -> str:
    known = {"step": step, "loss": 3.5, "tokens_seen": 10 * step, "tokens_per_sec": 20.0}
    return json.dumps(known | {"step_time_s": 0.5} | values) + "\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "run"


@pytest.fixture(scope="module")
def killed_run(start_chomp: Any, values: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a real run that was killed with SIGKILL while it trained."""
    import yaml

    base = tmp_path_factory.mktemp("killed")
    config = base / "config.yaml"
    sections = {"train": {"steps": 10**6, "log_every": 5}, "checkpoint": {"save_every": 20}}
    config.write_text(yaml.safe_dump(values("dummy", **sections)))
    process = start_chomp("train", config, "--run-dir", base / "run")
    deadline = time.monotonic() + 120
    while (beat := read_heartbeat(base / "run" / "heartbeat")) is None or beat.finished < 30:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.02)
    running = read_status(base / "run").process
    assert running.running and running.pid == process.pid
    process.send_signal(signal.SIGKILL)
    process.wait()
    return base / "run"


def test_a_killed_run_says_where_it_was(chomp: Any, killed_run: Path):
    status = read_status(killed_run)
    assert not status.process.running
    progress, goodput = status.progress, status.history.goodput
    assert progress.step >= 30 and progress.steps == 10**6
    (start,) = status.history.starts
    assert (start.ended, start.last_step) == ("killed", progress.step)
    assert progress.metrics["step"] <= progress.step < progress.metrics["step"] + 10
    assert sum(map(goodput.share, goodput.seconds)) == pytest.approx(1)
    assert goodput.seconds["compile"] > 0 and goodput.seconds["steps"] > 0
    assert status.seconds_left is None and status.problems == []
    done = chomp("status", killed_run)
    assert done.code == 0
    assert f"not running; killed while {start.phase} after step {start.last_step}" in done.out
    assert json.loads(chomp("status", killed_run, "--json").out)["starts"][0]["ended"] == "killed"


@pytest.mark.parametrize("cut", [0.0, 0.3, 0.9])
@pytest.mark.parametrize(
    "name", ["run.json", "heartbeat", "metrics.jsonl", "config_resolved.json", "all of them"]
)
def test_half_written_and_missing_files_are_no_crash(
    chomp: Any, killed_run: Path, tmp_path: Path, name: str, cut: float
):
    copy = tmp_path / "run"
    shutil.copytree(killed_run, copy)
    everything = ["run.json", "heartbeat", "metrics.jsonl", "config_resolved.json"]
    for broken in everything if name == "all of them" else [name]:
        content = (copy / broken).read_bytes()
        if cut:
            (copy / broken).write_bytes(content[: int(cut * len(content))])
        else:
            (copy / broken).unlink()
    assert "state      not running" in chomp("status", copy).out
    assert json.loads(chomp("status", copy, "--json").out)["running"] is False


@pytest.mark.parametrize(
    "config",
    ["[]", '{"train": 3}', '{"train": {"steps": "many"}, "logging": []}', '{"checkpoint": null}'],
)
def test_an_odd_config_is_no_crash(folder: Path, config: str):
    begin(folder)
    (folder / "metrics.jsonl").write_text(row(7))
    (folder / "config_resolved.json").write_text(config)
    status = read_status(folder)
    assert status.progress.metrics["step"] == 7
    assert status.progress.steps is None
    assert status_lines(status)


@pytest.mark.parametrize("value", [10**400, -(10**400), 1e300, float("inf"), float("nan"), -1, []])
def test_odd_values_are_no_crash(folder: Path, value: Any):
    """In place of any number of the record, and of any of a row."""
    begin(folder)
    record, metrics = folder / "run.json", json.loads(row(7))
    good = json.loads(record.read_text())
    start = good["starts"][0] | {"end_time": 5.0, "seconds": {"training": 2.0}}
    for key in (name for name, old in start.items() if isinstance(old, int | float | list)):
        record.write_text(json.dumps(good | {"starts": [start | {key: value}]}))
        assert status_lines(read_status(folder))
    for odd in ({"seconds": {"training": value}}, {"events": [{"time": value, "kind": "stall"}]}):
        record.write_text(json.dumps(good | {"starts": [start | odd]}))
        assert status_lines(read_status(folder))
    record.write_text(json.dumps(good | {"starts": [start]}))
    for key in metrics:
        (folder / "metrics.jsonl").write_text(json.dumps(metrics | {key: value}) + "\n")
        assert status_lines(read_status(folder))


def test_a_running_process(folder: Path):
    recorder, heartbeat = begin(folder)
    recorder.resumed(40, [{"step": 45, "reason": "a file is missing"}])
    recorder.event(EventKind.SAVE, step=48)
    heartbeat.enter(Phase.TRAINING, 51)
    heartbeat.finished(50)
    (folder / "metrics.jsonl").write_text(
        row(40, eval_loss=3.25, eval_bits_per_byte=1.5) + row(50) + '{"step": 55, "lo'
    )
    status = read_status(folder)
    process, progress = status.process, status.progress
    assert (process.running, process.pid, process.phase) == (True, os.getpid(), "training")
    assert (progress.step, progress.steps, status.seconds_left) == (50, 100, 25.0)
    assert (progress.metrics["step"], progress.evaluation["step"]) == (50, 40)
    lines = status_lines(status, process.since)
    assert lines[1] == f"state      training since 0 s, process {os.getpid()}"
    assert "progress   step 50 of 100 (50.0%), 500 tokens seen at step 50" in lines
    assert "loss       3.5000 nats per token (step 50), 500 ms/step, 20 tok/s" in lines
    assert "evaluation 3.2500 nats per token, 1.5000 bits per byte (step 40)" in lines
    assert "time left  25 s, of steps alone" in lines
    assert any(line.endswith("from step 40; running, step 50 finished") for line in lines)
    assert "    passed over  step 45, reason a file is missing" in lines
    assert any(line.endswith("save signal  step 48") for line in lines)


def test_a_hung_process_is_told_of(folder: Path):
    _, heartbeat = begin(folder)
    heartbeat.enter(Phase.SAVING, 9)
    status = read_status(folder)
    alive = status.process.alive
    assert alive is not None and alive == status.process.since
    (line,) = (line for line in status_lines(status, alive + 60) if "state" in line)
    assert line == f"state      saving since 1 min 0 s, process {os.getpid()}; " + (
        "no sign of life for 1 min 0 s"
    )


def test_a_process_that_only_inherited_the_number_is_not_the_run(folder: Path):
    """The heartbeat of a killed process, whose number this test's process has now."""
    import psutil

    recorder, heartbeat = begin(folder)
    heartbeat._change(alive=psutil.Process().create_time() - 100)
    assert not read_status(folder).process.running
    heartbeat.now()
    assert read_status(folder).process.running
    # On another host only the signs of life count.
    recorder.record.starts[0].host = "elsewhere"
    recorder.event(EventKind.STOP)
    assert read_status(folder).process.running
    heartbeat._change(alive=time.time() - 60)
    assert not read_status(folder).process.running


def test_a_dead_child_that_nobody_waited_for_is_not_running(folder: Path):
    script = (
        "import sys; from pathlib import Path; from chomp.run.heartbeat import Heartbeat; "
        "Heartbeat(Path(sys.argv[1])); print('begun', flush=True); input()"
    )
    begin(folder)
    child = subprocess.Popen(
        [sys.executable, "-c", script, folder / "heartbeat"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert child.stdout is not None and child.stdout.readline() == "begun\n"
    assert read_status(folder).process.running
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)  # dead, and still in the table
    assert not read_status(folder).process.running
    child.communicate()


def test_looking_does_not_take_the_lock(folder: Path):
    """A run that starts at the same moment would be refused."""
    begin(folder)
    (folder / ".lock").touch()
    tracer = "import sys; sys.addaudithook(lambda e, a: e.startswith('fcntl') and print(e, a))"
    program = f"{tracer}; from chomp.cli import main; main(['status', {str(folder)!r}])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert "state" in done.stdout
    assert "fcntl" not in done.stdout


def test_the_newest_checkpoint_is_one_with_a_manifest(folder: Path):
    begin(folder)
    assert read_status(folder).checkpoint is None
    for name in ("90", "100", "110.tmp", "200"):
        (folder / "checkpoints" / name).mkdir(parents=True)
        if name != "200":
            (folder / "checkpoints" / name / "manifest.json").write_text("{}")
    assert read_status(folder).checkpoint == 100


def test_the_whole_history_is_shown(folder: Path):
    first, heartbeat = begin(folder)
    first.on_device("cpu")
    heartbeat.finished(30)
    first.end("stopped", heartbeat.now())
    second, heartbeat = begin(folder, {"train": {"steps": 200}})
    second.resumed(20)
    second.rewind(60, 50, [55])
    heartbeat.finished(70)
    second.end("crashed", heartbeat.now(), error="ValueError: one\ntwo")
    heartbeat.close()
    lines = status_lines(read_status(folder))
    text = "\n".join(lines)
    assert "skipped    batches 55" in lines
    assert "; stopped after step 30" in text
    assert "from step 20; crashed after step 70 (ValueError: one)" in text
    assert "20 steps done again" in text
    assert "    changed  train.steps: was 100, now 200" in lines
    assert "rewind  from_step 60, to_step 50, batches [55]" in text


def test_a_folder_without_a_run_is_refused(chomp: Any, tmp_path: Path):
    with pytest.raises(ResumeError, match="holds no run"):
        read_status(tmp_path)
    assert chomp("status", tmp_path / "missing").code == 2


def test_it_answers_at_once(folder: Path):
    begin(folder)
    program = (
        f"import sys; from chomp.cli import main; main(['status', {str(folder)!r}], "
        "standalone_mode=False); "
        "print('LOADED', sorted({'jax', 'numpy', 'pydantic', 'rich'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout.endswith("LOADED []\n"), done.stdout + done.stderr


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-1, "0 s"),
        (59.4, "59 s"),
        (60, "1 min 0 s"),
        (7299, "2 h 1 min"),
        (90000, "1 d 1 h"),
    ],
)
def test_lengths_of_time(seconds: float, text: str):
    assert duration(seconds) == text
