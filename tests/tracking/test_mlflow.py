"""MLflow runs in a database of their own, read back by its client."""

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("mlflow", reason="the extra mlflow is not installed")

from mlflow import MlflowClient  # pyright: ignore[reportMissingImports]

Rows = dict[int, dict[str, list[float | None]]]


@pytest.fixture
def client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[MlflowClient]:
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    monkeypatch.chdir(tmp_path)  # the artifacts' place, by MLflow's default
    yield MlflowClient(tracking_uri=uri)


def runs(client: MlflowClient) -> list[Any]:
    """Return the runs, oldest first."""
    experiment = client.get_experiment_by_name("chomp")
    assert experiment is not None
    return list(
        client.search_runs([experiment.experiment_id], order_by=["attributes.start_time ASC"])
    )


def metrics(client: MlflowClient, run: Any) -> Rows:
    """Return all values of each metric by step, in the order in which they came."""
    rows: Rows = {}
    for key in run.data.metrics:
        history = sorted(client.get_metric_history(run.info.run_id, key), key=when)
        for metric in history:
            value = None if math.isnan(metric.value) else metric.value
            rows.setdefault(metric.step, {}).setdefault(key, []).append(value)
    return rows


def when(metric: Any) -> int:
    return metric.timestamp


def expected(rows: list[dict[str, Any]]) -> Rows:
    """Return the numbers of rows by step, each once."""
    return {
        row["step"]: {
            key: [value]
            for key, value in row.items()
            if key != "step" and not isinstance(value, str)
        }
        for row in rows
        if "error" not in row
    }


LOGGING = {"trackers": ["mlflow"]}


def test_a_run_has_the_rows_the_config_and_the_samples(
    chomp: Any, config_file: Any, read_rows: Any, tmp_path: Path, client: MlflowClient
):
    config = config_file(
        "megalodon", logging=LOGGING | {"watch": True}, train={"eval_every": 2, "generate_every": 4}
    )
    done = chomp("train", config, "--run-dir", tmp_path / "run")
    assert done.code == 0, done.err
    assert done.err == ""
    [run] = runs(client)
    assert metrics(client, run) == expected(read_rows(tmp_path / "run"))
    assert (run.info.run_name, run.info.status) == ("run", "FINISHED")
    assert run.data.params["train.steps"] == "4"
    places = {item.path for item in client.list_artifacts(run.info.run_id, "samples")}
    assert places == {"samples/step-0000004.txt"}
    sample = json.loads((tmp_path / "run" / "samples.jsonl").read_text())
    [place] = places
    text = Path(client.download_artifacts(run.info.run_id, place)).read_text()
    assert sample["prompt"] in text and sample["continuation"] in text


def test_a_resume_goes_on_with_the_same_run(
    chomp: Any, config_file: Any, read_rows: Any, tmp_path: Path, client: MlflowClient
):
    run, config = tmp_path / "run", config_file(logging=LOGGING)
    assert chomp("train", config, "--run-dir", run).code == 0
    assert chomp("train", "--run-dir", run, "--resume", "latest", "-o", "train.steps=6").code == 0
    [found] = runs(client)
    assert metrics(client, found) == expected(read_rows(run))
    assert found.info.status == "FINISHED"


def test_rows_that_are_made_again_have_the_values_they_had(
    chomp: Any, config_file: Any, read_rows: Any, tmp_path: Path, client: MlflowClient
):
    """As after a crash: the newest checkpoint is older than the newest row."""
    run, save = tmp_path / "run", {"save_every": 2}
    assert chomp("train", config_file(logging=LOGGING, checkpoint=save), "--run-dir", run).code == 0
    assert chomp("train", "--run-dir", run, "--resume", "2").code == 0
    [found] = runs(client)
    made = metrics(client, found)
    rows = {row["step"]: row for row in read_rows(run)}
    assert sorted(made) == [1, 2, 3, 4]
    for step, row in made.items():
        assert set(row["loss"]) == {rows[step]["loss"]}
        assert row["tokens_per_sec"][-1] == rows[step]["tokens_per_sec"]


def test_where_values_change_a_new_run_begins_with_the_rows_that_hold(
    chomp: Any, config_file: Any, read_rows: Any, tmp_path: Path, client: MlflowClient
):
    run, save = tmp_path / "run", {"save_every": 2}
    assert chomp("train", config_file(logging=LOGGING, checkpoint=save), "--run-dir", run).code == 0
    before = expected(read_rows(run))
    changed = ("-o", "optim.lr=1e-2", "--allow-change", "optim.lr")
    assert chomp("train", "--run-dir", run, "--resume", "2", *changed).code == 0
    old, new = runs(client)
    assert metrics(client, old) == before
    assert metrics(client, new) == expected(read_rows(run)) != before
    assert new.data.tags["mlflow.note.content"].endswith(f"{old.info.run_id} after step 2.")
    assert new.info.run_id in old.data.tags["mlflow.note.content"]


def test_so_it_does_after_a_rewind(
    chomp: Any, config_file: Any, read_rows: Any, tmp_path: Path, client: MlflowClient
):
    config = config_file(
        logging=LOGGING,
        train={"steps": 9, "on_divergence": "rewind", "divergence_limit": 1},
        optim={"lr": 1e30, "warmup_steps": 0},
        checkpoint={"save_every": 1},
    )
    assert chomp("train", config, "--run-dir", tmp_path / "run").code == 1
    _, last = runs(client)
    *rows, error = read_rows(tmp_path / "run")
    assert metrics(client, last) == expected(rows)
    assert last.info.status == "FAILED"
    assert last.data.tags["error"] == f"DivergedError: {error['reason']}"


def test_a_server_that_is_away_at_the_start_is_a_clear_message(
    chomp: Any, config_file: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    mlflow = {"tracking_uri": "http://127.0.0.1:9"}
    config = config_file(logging=LOGGING | {"mlflow": mlflow})
    done = chomp("train", config, "--run-dir", tmp_path / "run")
    assert done.code == 2
    assert done.err.startswith("error: logging.trackers: mlflow: ")
    assert "127.0.0.1" in done.err and done.err.count("\n") == 1


def test_a_run_that_is_not_there_any_more_is_a_clear_message(
    chomp: Any, config_file: Any, tmp_path: Path, client: MlflowClient
):
    run = tmp_path / "run"
    assert chomp("train", config_file(logging=LOGGING), "--run-dir", run).code == 0
    (run / "mlflow_id").write_text("f" * 32 + "\n")
    done = chomp("train", "--run-dir", run, "--resume", "latest", "-o", "train.steps=5")
    assert done.code == 2
    assert done.err == (
        f"error: {run}/mlflow_id: MLflow has no run {'f' * 32!r}; delete the file to begin a new "
        "one there\n"
    )
