import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from chomp.run.heartbeat import PHASES, HeartbeatReading, Phase, PhaseTimes
from chomp.run.record import (
    Attempt,
    RunRecord,
    StepRange,
    read_record,
    replayed_steps,
    step_ranges,
    with_heartbeat,
)


def a_start(number: int = 1, **values: Any) -> Attempt:
    known = {"time": 100.0, "pid": 7, "host": "h", "python": "3", "command": "c", "versions": {}}
    return Attempt(number=number, **{**known, **values})


def a_reading(**values: Any) -> HeartbeatReading:
    known = HeartbeatReading(
        pid=7,
        start=1,
        phase=Phase.TRAINING,
        turn=9,
        step=42,
        finished=41,
        since=130.0,
        alive=133.0,
        times=PhaseTimes(
            dict.fromkeys(PHASES, 0.0) | {Phase.STARTING: 10.0, Phase.TRAINING: 20.0}, 131.0
        ),
    )
    return known._replace(**values)


def rewind(from_step: int, to_step: int) -> dict[str, Any]:
    return {"time": 1.0, "kind": "rewind", "from_step": from_step, "to_step": to_step}


def test_a_record_is_read_as_it_was_written(tmp_path: Path):
    start = a_start(events=[rewind(5, 3)], seconds={"training": 1.5}, error="X: y", checkpoint=3)
    record = RunRecord("abc", [3, 4], {"train": {"steps": 3}}, [start, a_start(2)])
    path = tmp_path / "run.json"
    path.write_text(record.to_json())
    assert read_record(path) == record
    assert read_record(tmp_path / "none.json") is None


def broken(**values: Any) -> str:
    good = json.loads(RunRecord("abc", starts=[a_start()]).to_json())
    start = good["starts"][0] | values.pop("start", {})
    return json.dumps(good | {"starts": [start]} | values)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "Expecting value"),
        ('{"format": 1, "run": "a', "Unterminated"),
        ("[]", "no record of format 1"),
        (broken(format=2), "no record of format 1"),
        (broken(skipped_batches=[1, "2"]), "skipped_batches is"),
        (broken(starts=[3]), "argument after"),
        (broken(surprise=1), "surprise"),
        (broken(start={"time": "then"}), "time is 'then'"),
        (broken(start={"time": 1e300}), "time is 1e"),
        (broken(start={"end_time": float("nan")}), "end_time is nan"),
        (broken(start={"last_step": 10**400}), "last_step is 1000"),
        (broken(start={"changes": [{"key": "a"}]}), "change of start 1"),
        (broken(start={"seconds": {"training": None}}), "seconds is"),
        (broken(start={"events": [{"kind": "stall"}]}), "event of start 1"),
        (broken(start={"events": [{"kind": "rewind", "time": 1.0}]}), "event of start 1"),
    ],
)
def test_anything_else_is_broken(tmp_path: Path, text: str, reason: str):
    path = tmp_path / "run.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=reason):
        read_record(path)
    path.write_bytes(b"\xff\xfe{")
    with pytest.raises(ValueError):
        read_record(path)


def test_a_killed_start_is_completed_from_its_heartbeat():
    done = with_heartbeat(a_start(), a_reading(), running=False)
    assert (done.ended, done.phase, done.last_step, done.end_time) == (
        "killed",
        "training",
        41,
        133.0,
    )
    assert done.seconds["training"] == 22.0
    assert done.seconds["starting"] == 10.0


def test_a_running_start_has_no_end():
    now = with_heartbeat(a_start(), a_reading(), running=True)
    assert (now.ended, now.end_time, now.last_step) == (None, None, 41)


@pytest.mark.parametrize("values", [{"pid": 8}, {"start": 2}])
def test_the_heartbeat_of_another_process_says_nothing(values: dict[str, int]):
    start = a_start(from_step=30, last_step=30)
    done = with_heartbeat(start, a_reading(**values), running=False)
    assert done == dataclasses.replace(start, ended="killed")
    assert with_heartbeat(start, None, running=False) == done


def test_an_end_that_is_recorded_stays():
    start = a_start(ended="finished", last_step=50)
    assert with_heartbeat(start, a_reading(), running=False) is start


def test_an_end_that_could_not_be_recorded_is_no_kill():
    assert with_heartbeat(a_start(), a_reading(phase=Phase.ENDED), running=False).ended == "ended"


def test_ranges_of_steps():
    starts = [
        a_start(1, last_step=120),
        a_start(2, from_step=100, last_step=100),  # killed before its first step
        a_start(3, from_step=100, last_step=150, events=[rewind(140, 110)]),
    ]
    assert step_ranges(starts) == [
        StepRange(1, 0, 120),
        StepRange(3, 100, 140),
        StepRange(3, 110, 150),
    ]
    assert replayed_steps(starts) == 20 + 30
    assert replayed_steps(starts[:2]) == 0
    assert replayed_steps(starts[:1]) == 0
