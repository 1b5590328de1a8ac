import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from chomp.report.metrics_file import MetricsFile


def lines(*rows: dict[str, Any]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "metrics.jsonl"


def read(path: Path, **keys: Any) -> MetricsFile:
    found = MetricsFile(path, **keys)
    found.refresh()
    return found


def test_a_real_run(evaluated_run: Path, read_rows: Any):
    columns, rows = read(evaluated_run / "metrics.jsonl").columns, read_rows(evaluated_run)
    for key in ("step", "loss", "tokens_seen", "lr"):
        assert columns[key].tolist() == [row[key] for row in rows]
    assert "batch_hash" not in columns and "packing_mode" not in columns
    texts = read(evaluated_run / "metrics.jsonl", texts=("batch_hash",)).columns
    assert texts["batch_hash"].tolist() == [row["batch_hash"] for row in rows]


def test_only_what_is_new_is_read(path: Path):
    path.write_text(lines({"step": 1, "loss": 4.0}))
    found = read(path)
    with path.open("a") as file:
        file.write(lines({"step": 2, "loss": 3.0, "eval_loss": 3.5}) + '{"step": 3, "lo')
    found.refresh()
    assert found.columns["step"].tolist() == [1, 2] and found.generation == 0
    with path.open("a") as file:
        file.write('ss": 2.0}\n')
    found.refresh()
    assert found.columns["loss"].tolist() == [4, 3, 2]
    np.testing.assert_array_equal(found.columns["eval_loss"], [np.nan, 3.5, np.nan])
    assert (found.rows, found.broken, found.generation) == (3, 0, 0)


def test_a_last_row_that_is_written_anew(path: Path):
    path.write_text(lines({"step": 1, "loss": 4.0}, {"step": 2, "loss": 3.0}))
    found = read(path)
    path.write_text(lines({"step": 1, "loss": 4.0}, {"step": 2, "loss": 3.0, "eval_loss": 3.2}))
    found.refresh()
    assert found.columns["eval_loss"].tolist()[1:] == [3.2] and found.rows == 2
    assert found.generation == 1


def test_rows_that_a_resume_takes_out(path: Path):
    path.write_text(lines(*({"step": step, "loss": 4.0} for step in range(1, 9))))
    found = read(path)
    other = path.with_name("other")
    other.write_text(lines(*({"step": step, "loss": 3.0} for step in range(1, 5))))
    other.replace(path)
    found.refresh()
    assert found.columns["loss"].tolist() == [3.0] * 4 and found.generation == 1
    path.unlink()
    found.refresh()
    assert found.rows == 0


def test_the_later_of_rows_of_a_step_counts(path: Path):
    steps = [1, 2, 3, 2, 3, 4, 4]
    path.write_text(lines(*({"step": s, "loss": float(at)} for at, s in enumerate(steps))))
    assert read(path).columns["loss"].tolist() == [0, 3, 4, 6]
    found = read(path)
    with path.open("a") as file:
        file.write(lines({"step": 3, "loss": 9.0}))
    found.refresh()
    assert found.columns["step"].tolist() == [1, 2, 3] and found.columns["loss"][-1] == 9
    assert found.generation == 1


def test_what_is_no_row_is_counted_and_an_error_is_told(path: Path):
    path.write_text(
        lines({"step": 1, "loss": 4.0})
        + '\n{"step": 2, "lo\n[]\n{"loss": 2}\n{"step": true}\n{"step": -1}\n'
        + '{"step": 1' + "0" * 400 + '}\n{"step": 2, "a": ' + "[" * 5000 + "\n"
        + lines({"step": 3, "error": "DivergedError", "reason": "nan"})
        + lines({"step": 4, "loss": None}, {"step": 5, "loss": 2.0, "big": 10**400, "text": "5"})
    )  # fmt: skip
    found = read(path)
    assert found.broken == 7 and found.columns["step"].tolist() == [1, 4, 5]
    np.testing.assert_array_equal(found.columns["loss"], [4, np.nan, 2])
    assert [error.error for error in found.errors] == ["DivergedError"]
    assert "text" not in found.columns and np.isnan(found.columns["big"]).all()


def test_bytes_that_are_no_text(path: Path):
    path.write_bytes(b'\xff\xfe\x00\n{"step": 1, "loss": 4.0}\n')
    assert read(path).rows == 1


def test_a_file_of_many_blocks(path: Path, monkeypatch: pytest.MonkeyPatch):
    rows = [{"step": step, "loss": step / 7} for step in range(1, 200)]
    path.write_text(lines(*rows))
    monkeypatch.setattr("chomp.report.metrics_file.BLOCK", 64)
    assert read(path).columns["loss"].tolist() == [row["loss"] for row in rows]
