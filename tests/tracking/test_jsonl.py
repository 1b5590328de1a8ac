import json
import logging
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest

from chomp.system.console import Console
from chomp.tracking import JsonLines, keep_rows_up_to, log_to_file


@pytest.fixture
def files(tmp_path: Path, no_lines: Console) -> Iterator[JsonLines]:
    lines = JsonLines(tmp_path / "new" / "metrics.jsonl", tmp_path / "samples.jsonl", no_lines)
    yield lines
    lines.close()


@pytest.fixture
def metrics(tmp_path: Path) -> Path:
    return tmp_path / "new" / "metrics.jsonl"


def rows(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def test_rows_are_there_as_soon_as_they_are_logged(files: JsonLines, metrics: Path):
    files.log({"step": 1, "loss": 2.5})
    assert rows(metrics) == [{"step": 1, "loss": 2.5}]
    files.log({"step": 2, "loss": 2.25})
    assert rows(metrics)[1] == {"step": 2, "loss": 2.25}


def test_a_second_row_of_a_step_is_merged_into_the_first(files: JsonLines, metrics: Path):
    files.log({"step": 1, "loss": 2.5})
    files.log({"step": 2, "loss": 2.25, "lr": 1.0})
    files.log({"step": 2, "eval_loss": 3.0, "lr": 2.0})
    files.log({"step": 3, "loss": 2.0})
    assert rows(metrics) == [
        {"step": 1, "loss": 2.5},
        {"step": 2, "loss": 2.25, "lr": 2.0, "eval_loss": 3.0},
        {"step": 3, "loss": 2.0},
    ]


def test_an_error_has_a_row_of_its_own(files: JsonLines, metrics: Path):
    files.log({"step": 2, "loss": 2.25})
    files.log({"step": 2, "error": "DataError", "reason": "line 7"})
    assert [sorted(row) for row in rows(metrics)] == [["loss", "step"], ["error", "reason", "step"]]


def test_what_is_not_finite_is_null(files: JsonLines, metrics: Path):
    files.log({"step": 1, "loss": float("nan"), "grad_norm": float("inf"), "lr": 0.5})
    assert rows(metrics) == [{"step": 1, "loss": None, "grad_norm": None, "lr": 0.5}]


def test_samples_keep_their_characters(files: JsonLines, tmp_path: Path):
    record = {"step": 1, "prompt": 'é\n"€', "continuation": "\ufffd\x00"}
    files.sample(record)
    text = (tmp_path / "samples.jsonl").read_text("utf-8")
    assert "é" in text
    assert json.loads(text) == record
    assert len(text.splitlines()) == 1


def test_rows_behind_a_step_are_dropped(tmp_path: Path):
    path = tmp_path / "metrics.jsonl"
    kept = [{"step": n, "loss": n / 3} for n in (2, 4, 6)]
    error = {"step": 4, "error": "DataError"}
    lines = [json.dumps(row) + "\n" for row in (*kept[:2], error, kept[2])]
    path.write_text("".join(lines) + '{"step": 8, "lo')
    keep_rows_up_to(6, path)
    assert path.read_text() == "".join(json.dumps(row) + "\n" for row in kept)
    keep_rows_up_to(4, path)
    assert rows(path) == kept[:2]
    keep_rows_up_to(0, path)
    assert path.read_text() == ""
    replaced = (tmp_path / "metrics.replaced.jsonl").read_text("utf-8").split("\n")
    assert [json.loads(replaced[0]), replaced[1]] == [error, '{"step": 8, "lo']
    assert [json.loads(line) for line in replaced[2:5]] == [kept[2], *kept[:2]]
    assert len(list(tmp_path.iterdir())) == 2


def test_characters_that_end_lines_elsewhere_stay_in_their_row(tmp_path: Path):
    path = tmp_path / "samples.jsonl"
    row = json.dumps({"step": 1, "continuation": "a\u2028b\x85c"}, ensure_ascii=False) + "\n"
    path.write_text(row + '{"step": 2}\n', encoding="utf-8")
    keep_rows_up_to(1, path)
    assert path.read_text(encoding="utf-8") == row


def test_a_last_line_that_was_cut_short_is_dropped_whatever_it_says(tmp_path: Path):
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b'{"step": 1}\n{"step": 2, "x": "\xc3')
    keep_rows_up_to(5, path)
    assert rows(path) == [{"step": 1}]


def test_no_file_is_fine(tmp_path: Path):
    keep_rows_up_to(3, tmp_path / "missing.jsonl")
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def root_logger() -> Iterator[logging.Logger]:
    root = logging.getLogger()
    before = root.handlers[:], root.level
    hook = sys.unraisablehook
    yield root
    sys.unraisablehook = hook
    logging.captureWarnings(False)
    for handler in root.handlers:
        handler.close()
    root.handlers[:], root.level = before


class Broken:
    def __del__(self):
        raise ValueError("too late")


@pytest.mark.usefixtures("root_logger")
def test_all_log_lines_go_to_the_file(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], no_lines: Console
):
    path = tmp_path / "train.log"
    log_to_file(path, "WARNING", no_lines)
    logging.getLogger("someone.else").warning("take care")
    logging.getLogger("someone.else").info("never mind")
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        logging.captureWarnings(True)
        warnings.warn("old ways", DeprecationWarning, stacklevel=1)
    broken = Broken()
    del broken
    text = path.read_text()
    assert "WARNING someone.else: take care" in text
    assert "never mind" not in text
    assert "old ways" in text
    assert "ValueError: too late" in text
    assert capfd.readouterr() == ("", "")


@pytest.mark.usefixtures("root_logger")
def test_without_a_file_log_lines_go_nowhere(capfd: pytest.CaptureFixture[str], no_lines: Console):
    log_to_file(None, "INFO", no_lines)
    logging.getLogger("someone.else").error("help")
    assert capfd.readouterr() == ("", "")


def test_log_lines_steer_no_terminal(tmp_path: Path, console: Console):
    root = logging.getLogger()
    before = root.handlers[:], root.level
    try:
        log_to_file(tmp_path / "train.log", "INFO", console)
        logging.getLogger("a library").warning("opened %s", "\x1b]0;x\x07\x9b.jsonl")
    finally:
        logging.captureWarnings(False)
        for handler in root.handlers:
            handler.close()
        root.handlers[:], root.level = before
    text = (tmp_path / "train.log").read_text("utf-8")
    assert text.endswith("a library: opened \\u001b]0;x\\u0007\\u009b.jsonl\n")
