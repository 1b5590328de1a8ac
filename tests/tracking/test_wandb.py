import json
import struct
import subprocess
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import wandb

from chomp.errors import ConfigError
from chomp.tracking import require_wandb

pytestmark = pytest.mark.usefixtures("share_programs")

BLOCK = 32768


def records(run: Path) -> list[Any]:
    """Every record of an offline run's file: a LevelDB log behind a header of 7 bytes."""
    from wandb.proto import wandb_internal_pb2

    [path] = run.glob("*.wandb")
    data, at, found, parts = path.read_bytes(), 7, [], b""
    assert data.startswith(b":W&B")
    while at < len(data):
        room = BLOCK - at % BLOCK
        if room < 7:  # too little for the next header: zeros
            at += room
            continue
        length, kind = struct.unpack_from("<HB", data, at + 4)
        parts += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # a whole record, or the last part of one
            found.append(wandb_internal_pb2.Record.FromString(parts))
            parts = b""
    return found


def history(found: list[Any]) -> list[dict[str, Any]]:
    """The logged rows by W&B's step, without its own fields."""
    steps: dict[int, dict[str, Any]] = {}
    for record in found:
        if record.WhichOneof("record_type") == "history":
            items = record.history.item
            row = {(i.key or "/".join(i.nested_key)): json.loads(i.value_json) for i in items}
            steps.setdefault(int(row["_step"]), {}).update(row)
    return [{k: v for k, v in row.items() if k[0] != "_"} for row in steps.values()]


def notes(found: list[Any]) -> str:
    """The description that a run begins with."""
    return next(r.run.notes for r in found if r.WhichOneof("record_type") == "run")


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[dict[str, Any]]:
    for name in ("WANDB_DIR", "WANDB_CACHE_DIR", "WANDB_CONFIG_DIR", "WANDB_DATA_DIR"):
        folder = tmp_path / name.lower()
        folder.mkdir()
        monkeypatch.setenv(name, str(folder))
    yield {"wandb": {"enabled": True, "mode": "offline", "tags": ["a tag"]}}
    wandb.teardown()  # it remembers the folders for the rest of the process


def test_an_offline_run_has_the_rows_of_the_metrics_and_the_config(
    chomp: Any, config_file: Any, read_rows: Any, tmp_path: Path, offline: dict[str, Any]
):
    config = config_file(logging=offline, train={"eval_every": 2}, optim={"name": "muon"})
    done = chomp("train", config, "--run-dir", tmp_path / "run")
    assert done.code == 0, done.err
    [run] = (tmp_path / "wandb_dir" / "wandb").glob("offline-run-*")
    found = records(run)
    assert history(found) == read_rows(tmp_path / "run")
    [started] = [r.run for r in found if r.WhichOneof("record_type") == "run"][:1]
    assert (started.project, started.display_name, list(started.tags)) == (
        "chomp",
        "run",
        ["a tag"],
    )
    values = {item.key: json.loads(item.value_json) for item in started.config.update}
    assert values["train"]["steps"] == 4
    artifacts = [
        r.request.log_artifact.artifact if r.WhichOneof("record_type") == "request" else r.artifact
        for r in found
        if r.WhichOneof("record_type") in ("artifact", "request")
    ]
    [files] = [a.manifest.contents for a in artifacts if a.type == "config"]
    [entry] = files
    assert entry.path == "config_original.yaml"
    assert entry.size == config.stat().st_size
    [kept] = (tmp_path / "run").glob("config_original.yaml")
    assert kept.read_bytes() == config.read_bytes()


def test_a_resume_goes_on_with_the_same_run(
    chomp: Any, config_file: Any, read_rows: Any, tmp_path: Path, offline: dict[str, Any]
):
    config = config_file(logging=offline)
    more = ["--resume", "latest", "-o", "train.steps=6"]
    for arguments in ([], more):
        done = chomp("train", config, "--run-dir", tmp_path / "run", *arguments)
        assert done.code == 0, done.err
    runs = list((tmp_path / "wandb_dir" / "wandb").glob("offline-run-*"))
    assert len(runs) == 2
    # A folder is named after its time and the run's id, and a number if both were there before.
    assert len({run.name.split("-")[3] for run in runs}) == 1
    rows = [row for run in runs for row in history(records(run))]
    assert sorted(rows, key=lambda row: row["step"]) == read_rows(tmp_path / "run")


def test_where_values_change_a_new_run_begins_with_the_rows_that_hold(
    chomp: Any, config_file: Any, read_rows: Any, tmp_path: Path, offline: dict[str, Any]
):
    run, places = tmp_path / "run", tmp_path / "wandb_dir" / "wandb"
    config = config_file(logging=offline, checkpoint={"save_every": 2})
    assert chomp("train", config, "--run-dir", run).code == 0
    before, old = read_rows(run), (run / "wandb_id").read_text().strip()
    changed = ("-o", "optim.lr=1e-2", "--allow-change", "optim.lr")
    assert chomp("train", "--run-dir", run, "--resume", "2", *changed).code == 0
    new = (run / "wandb_id").read_text().strip()
    [first], [second] = (places.glob(f"offline-run-*-{name}") for name in (old, new))
    assert history(records(first)) == before
    assert history(records(second)) == read_rows(run) != before
    assert notes(records(second)) == f"Goes on from the run {old} after step 2."


def test_so_it_does_after_a_rewind(
    chomp: Any, config_file: Any, read_rows: Any, tmp_path: Path, offline: dict[str, Any]
):
    config = config_file(
        logging=offline,
        train={"steps": 9, "on_divergence": "rewind", "divergence_limit": 1},
        optim={"lr": 1e30, "warmup_steps": 0},
        checkpoint={"save_every": 1},
    )
    assert chomp("train", config, "--run-dir", tmp_path / "run").code == 1
    last = (tmp_path / "run" / "wandb_id").read_text().strip()
    runs = list((tmp_path / "wandb_dir" / "wandb").glob("offline-run-*"))
    assert len(runs) > 1
    [found] = (records(run) for run in runs if run.name.endswith(last))
    *rows, diverged, error = read_rows(tmp_path / "run")
    assert history(found)[:-1] == rows != []
    last_row = history(found)[-1]  # W&B has one row a step
    assert (last_row["step"], last_row["error"]) == (diverged["step"], error["error"])
    before = notes(found).split()[5]
    assert before != last and any(run.name.endswith(before) for run in runs)


def test_switched_on_at_a_resume_it_has_the_rows_of_before(
    chomp: Any, config_file: Any, read_rows: Any, tmp_path: Path, offline: dict[str, Any]
):
    run = tmp_path / "run"
    assert chomp("train", config_file(), "--run-dir", run).code == 0
    config = config_file(logging=offline, train={"steps": 6})
    assert chomp("train", config, "--run-dir", run, "--resume", "latest").code == 0
    [found] = (tmp_path / "wandb_dir" / "wandb").glob("offline-run-*")
    assert history(records(found)) == read_rows(run)


@pytest.mark.parametrize(("mode", "runs"), [("offline", 1), ("dryrun", 1), ("disabled", 0)])
def test_what_the_config_leaves_open_comes_from_wandbs_own_variables(
    chomp: Any,
    config_file: Any,
    tmp_path: Path,
    offline: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
    mode: str,
    runs: int,
):
    """As a cluster's module file sets them for everybody."""
    named = {"PROJECT": "theirs", "NAME": "a name", "TAGS": "one,two"}
    for name, value in (named | {"MODE": mode}).items():
        monkeypatch.setenv(f"WANDB_{name}", value)
    del offline["wandb"]["mode"], offline["wandb"]["tags"]
    done = chomp("train", config_file(logging=offline), "--run-dir", tmp_path / "run")
    assert done.code == 0, done.err
    found = list((tmp_path / "wandb_dir" / "wandb").glob("offline-run-*"))
    assert len(found) == runs
    for run in found:
        [started] = [r.run for r in records(run) if r.WhichOneof("record_type") == "run"][:1]
        assert (started.project, started.display_name) == ("theirs", "a name")
        assert list(started.tags) == ["one", "two"]


def test_a_variable_that_makes_no_sense_is_a_clear_message(
    chomp: Any, config_file: Any, tmp_path: Path, offline: Any, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("WANDB_MODE", "sometimes")
    del offline["wandb"]["mode"]
    done = chomp("train", config_file(logging=offline), "--run-dir", tmp_path / "run")
    assert done.code == 2
    assert "logging.wandb: " in done.err


@pytest.mark.parametrize("kept", [b"", b"a\nb", b"\xff\xfe", b"../x", b"\x1b[31m"])
def test_a_kept_id_that_is_none_is_a_clear_message(
    chomp: Any, config_file: Any, tmp_path: Path, offline: Any, kept: bytes
):
    run = tmp_path / "run"
    assert chomp("train", config_file(), "--run-dir", run).code == 0
    (run / "wandb_id").write_bytes(kept)
    more = ("-o", "logging.wandb.enabled=true", "--allow-change", "logging.wandb.enabled")
    done = chomp("train", "--run-dir", run, "--resume", "latest", *more)
    assert done.code == 2
    assert done.err == (
        f"error: {run}/wandb_id: holds no id of a W&B run; delete it to go on with a new one "
        "there, or set logging.wandb.enabled: false\n"
    )


def test_an_id_that_is_no_name_of_an_artifact_is_one_of_a_run(
    chomp: Any, config_file: Any, tmp_path: Path, offline: Any, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("WANDB_RUN_ID", "an id and spaced")
    done = chomp("train", config_file(logging=offline), "--run-dir", tmp_path / "run")
    assert done.code == 0, done.err
    assert (tmp_path / "run" / "wandb_id").read_text() == "an id and spaced\n"


def test_a_run_that_diverged_is_a_failed_one_with_its_reason(
    chomp: Any, config_file: Any, tmp_path: Path, offline: dict[str, Any]
):
    config = config_file(logging=offline, optim={"lr": 1e38})
    assert chomp("train", config, "--run-dir", tmp_path / "run").code == 1
    [run] = (tmp_path / "wandb_dir" / "wandb").glob("offline-run-*")
    found = records(run)
    [end] = [r.exit for r in found if r.WhichOneof("record_type") == "exit"]
    assert end.exit_code == 1
    updates = [r.summary.update for r in found if r.WhichOneof("record_type") == "summary"]
    values = {item.key: json.loads(item.value_json) for items in updates for item in items}
    assert values["error"].startswith("DivergedError: loss or gradients were not finite")


def test_without_wandb_dir_it_is_in_the_working_folder(
    chomp: Any, config_file: Any, tmp_path: Path, offline: Any, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.delenv("WANDB_DIR")
    monkeypatch.chdir(tmp_path)
    done = chomp("train", config_file(logging=offline), "--run-dir", "run")
    assert done.code == 0, done.err
    assert len(list((tmp_path / "wandb").glob("offline-run-*"))) == 1


def test_a_login_that_is_missing_is_a_clear_message(
    start_chomp: Any, config_file: Any, offline: Any, tmp_path: Path
):
    offline["wandb"]["mode"] = "online"
    process = start_chomp(
        *("train", config_file(logging=offline), "--run-dir", tmp_path / "run"),
        env={"HOME": str(tmp_path), "WANDB_API_KEY": ""},
        stdin=subprocess.DEVNULL,
    )
    _, err = process.communicate(timeout=120)
    assert process.returncode == 2
    assert "wandb login" in err
    assert "logging.wandb.mode: offline" in err
    assert "Traceback" not in err


def test_a_folder_of_that_name_is_no_package(monkeypatch: pytest.MonkeyPatch):
    """`./wandb` of an earlier run, found first by `python -m chomp`."""
    folder = types.ModuleType("wandb")
    folder.__file__ = None
    monkeypatch.setitem(sys.modules, "wandb", folder)
    with pytest.raises(ConfigError, match="the package wandb is not installed"):
        require_wandb()


def test_a_missing_package_is_a_clear_message(config_file: Any, offline: Any, tmp_path: Path):
    script = (
        "import sys\nsys.modules['wandb'] = None  # as if it were not installed\n"
        "from chomp.cli import main\nmain(sys.argv[1:])"
    )
    run = tmp_path / "run"
    command = [sys.executable, "-c", script, "train", config_file(logging=offline)]
    done = subprocess.run([*command, "--run-dir", run], capture_output=True, text=True)
    assert done.returncode == 2
    assert "logging.wandb.enabled: the package wandb is not installed" in done.stderr
    assert "pip install" in done.stderr
    assert "Traceback" not in done.stderr
    # Corrected, the same command starts: nothing claims that a run is there.
    again = [*command, "--run-dir", run, "-o", "logging.wandb.enabled=false"]
    done = subprocess.run(again, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
