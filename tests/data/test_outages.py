"""A hub that misbehaves, as a run meets it: the real commands, the real libraries."""

import json
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from fake_hub import FAULTS, FakeHub

SCRIPT = Path(__file__).parents[2] / "scripts" / "http_faults.py"


def run_script(*options: object) -> str:
    command = [sys.executable, SCRIPT, *map(str, options)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr[-3000:]
    return done.stdout


def test_a_faulty_server_gives_the_batches_of_a_quiet_one():
    short = ("--documents", 100, "--epochs", 1)
    out = run_script(*short, "--formats", "parquet", "jsonl.zst")
    times = [int(count) for count in re.findall(r"\| (\d+) \|$", out, re.MULTILINE)][-len(FAULTS) :]
    assert min(times) >= 1, out


@pytest.mark.slow
def test_each_format_gives_the_batches_of_a_quiet_server_through_hundreds_of_faults():
    out = run_script()
    faults = re.findall(r"^\| (?:parquet|jsonl)[^|]* \| [^|]* \| ([^|]*) \|", out, re.MULTILINE)
    assert len(faults) == 4
    assert sum(int(count.replace(",", "")) for count in faults) >= 200


@pytest.fixture
def hub(tmp_path, texts):
    folder = tmp_path / "set"
    folder.mkdir()
    for i in range(3):
        lines = [json.dumps({"text": text}) + "\n" for text in texts[i::3]]
        (folder / f"train-0000{i}-of-00003.jsonl").write_text("".join(lines))
    with FakeHub(folder, 0.0) as hub:
        yield hub


@pytest.fixture
def start(hub, tmp_path, config_file, start_chomp):
    """Start a run on the hub's dataset."""

    def start_(*options, dataset="me/data", retries=1, config=True, **sections):
        data = {"backend": "hf", "hf_dataset": dataset, "hf_name": None, "files": []}
        data |= {"shuffle_buffer_size": 8, "grain_prefetch": 1}
        data |= {"max_retries": retries, "retry_delay_sec": 0.5, "timeout_sec": 1.0}
        words = ("train", config_file(data=data, **sections)) if config else ()
        environment = {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "home")}
        return start_chomp(*words, *options, env=environment | {"HF_HUB_OFFLINE": ""})

    return start_


def losses(read_rows, folder):
    return [(row["step"], row["loss"]) for row in read_rows(folder)]


def test_an_outage_in_a_run_ends_it_with_the_state_saved_and_a_resume_goes_on(
    start, hub, tmp_path, read_rows
):
    keys = {"train": {"steps": 150, "log_every": 1}, "checkpoint": {"save_every": 1000}}
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    process = start("--run-dir", whole, **keys)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    hub.answers = hub.requests // 2  # the hub goes down between two of the requests of the run
    process = start("--run-dir", broken, **keys)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 1, err
    assert re.search(
        r"error: hf://datasets/me/data@\w+/train-0000\d-of-00003\.jsonl, byte \d+", err
    )
    step = read_rows(broken)[-1]["step"]
    assert 0 < step < 150
    hub.answers = None
    process = start("--run-dir", broken, "--resume", "latest", **keys)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    assert f"after step {step}" in out + err
    assert losses(read_rows, broken) == losses(read_rows, whole)


def test_a_run_stays_with_the_version_of_its_dataset(start, hub, tmp_path, read_rows):
    run = tmp_path / "run"
    keys = {"train": {"steps": 8, "log_every": 1}, "checkpoint": {"save_every": 4}}
    process = start("--run-dir", run, **keys)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    before, commit = losses(read_rows, run), hub.sha
    hub.older, hub.sha, hub.folder = {commit: hub.folder}, "c" * 40, tmp_path / "newer"
    shutil.copytree(hub.older[commit], hub.folder)
    shutil.copy(tmp_path / "set" / "train-00000-of-00003.jsonl", hub.folder / "more.jsonl")
    again = ("--run-dir", run, "--resume", 4)
    process = start(*again, **keys)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    assert f"data.hf_revision: was None, now '{commit}'" in out
    assert losses(read_rows, run) == before
    traced = start(*("trace", run, "--json"), config=False)
    assert json.loads(traced.communicate(timeout=60)[0])["documents"]
    process = start(*again, "--allow-change", "data.content", **keys)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    assert hub.sha in (run / "ledger.jsonl").read_text()
    process = start("--dry-run", "-o", "data.hf_revision=none-such", retries=50, **keys)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 2, err
    assert "'me/data' can't be opened" in err
    assert "none-such" in err


def test_a_run_begins_when_the_hub_is_back_and_counts_its_retries(start, hub, tmp_path, read_rows):
    hub.stop()
    run = tmp_path / "run"
    process = start("--run-dir", run, retries=6, train={"steps": 4})
    log = run / "train.log"
    while "retry 1 of 6 in 0.5 s" not in (log.read_text() if log.exists() else ""):
        assert process.poll() is None
        time.sleep(0.05)
    hub.go_on()
    _, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    assert read_rows(run)[-1]["read_retries"] > 0


def test_a_hub_that_stays_away_is_no_mistake_of_the_user_s(start, hub):
    hub.stop()
    process = start("--dry-run")
    _, err = process.communicate(timeout=60)
    assert process.returncode == 1, err
    assert "error: data.hf_dataset: 'me/data': reading failed, and again in 1 retries" in err


def test_a_wrong_name_is_found_out_at_once(start, hub):
    begin = time.monotonic()
    process = start("--dry-run", dataset="me/none", retries=50)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 2, err
    assert "data.hf_dataset: 'me/none' can't be opened" in err
    assert time.monotonic() - begin < 30
