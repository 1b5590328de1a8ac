import time
from pathlib import Path

import numpy as np

from chomp.commands.status import read_status
from chomp.report.marks import marks_of
from chomp.report.metrics_file import ErrorRow
from chomp.run.heartbeat import Heartbeat, Phase
from chomp.run.record import EventKind, Parent
from chomp.run.recorder import RunRecorder
from chomp.system.console import Console


def test_what_happened_is_marked_at_its_step(tmp_path: Path):
    """A branch that was killed, resumed with another rate, went back, and ended with an error."""
    (tmp_path / "config_original.yaml").write_text("")

    def start(config: dict[str, float]) -> tuple[RunRecorder, Heartbeat]:
        recorder = RunRecorder(tmp_path / "run.json", tmp_path / "heartbeat", Console())
        changed = [type("Change", (), {"key": "lr", "old": 1, "new": 2})]
        recorder.start(time=time.time(), versions={}, config=config, compare=lambda a, b: changed)
        return recorder, Heartbeat(tmp_path / "heartbeat", start=recorder.number)

    recorder, heartbeat = start({"lr": 1})
    recorder.began_from(Parent("abc", "runs/parent", 40, "branch"))
    recorder.resumed(40)
    heartbeat.enter(Phase.TRAINING, 70)
    heartbeat.finished(70)
    recorder, heartbeat = start({"lr": 2})
    recorder.resumed(60)
    heartbeat.finished(90)
    recorder.event(EventKind.DIVERGED, step=88, batch=89, what="loss nan")
    recorder.event(EventKind.STALL, step=89, phase="saving", seconds=60)
    recorder.event(EventKind.NOT_SAVED, what="a checkpoint")
    recorder.rewind(90, 80, [89, 90])

    columns = {
        "step": np.array([50.0, 60, 70]),
        "updates_rejected": np.array([0.0, np.nan, 2]),
    }
    errors = [ErrorRow(95, "DataError", "gone")]
    found = marks_of(read_status(tmp_path).to_json(), columns, errors)
    assert [(mark["step"], mark["kind"]) for mark in found] == [
        (40, "branch"),
        (60, "resume"),
        (70, "rejected"),
        (80, "rewind"),
        (88, "diverged"),
        (89, "stall"),
        (95, "error"),
    ]
    texts = {mark["kind"]: mark["text"] for mark in found}
    assert texts["branch"] == "branched off runs/parent after step 40"
    assert "killed after step 70" in texts["resume"] and "lr: was 1, now 2" in texts["resume"]
    assert texts["rewind"] == "back from step 90, without batches 89, 90"
    assert texts["rejected"].startswith("2 update(s) not applied")
