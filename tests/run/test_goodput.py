from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chomp.run.goodput import PARTS, Goodput, goodput_line, lasting_shares, measure
from chomp.run.heartbeat import PHASES
from chomp.run.record import Attempt


def a_start(number: int, time: float, end: float | None, **values: Any) -> Attempt:
    known = {"pid": 7, "host": "h", "python": "3", "command": "c", "versions": {}}
    ended = None if end is None else "finished"
    return Attempt(number, time, **(known | {"ended": ended, "end_time": end} | values))


def seconds_of(goodput: Goodput) -> dict[str, float]:
    return {part: seconds for part, seconds in goodput.seconds.items() if seconds}


def test_one_start():
    seconds = {
        "starting": 5.0,
        "compiling": 10.0,
        "training": 70.0,
        "waiting for data": 2.0,
        "saving": 3.0,
        "evaluating": 4.0,
        "sampling": 1.0,
        "restoring": 1.0,
        "closing": 2.0,
    }
    goodput = measure([a_start(1, 100, 200, last_step=70, seconds=seconds)], now=10_000)
    assert seconds_of(goodput) == {
        "steps": 70,
        "compile": 10,
        "data wait": 2,
        "saving": 3,
        "evaluation": 4,
        "sampling": 1,
        "starting": 6,
        "closing": 2,
        "other": 2,
    }
    assert goodput.total == 100
    assert goodput.share("steps") == 0.7


def test_a_resume_loses_the_steps_behind_its_checkpoint():
    """1,000 to 1,100: 100 steps; killed; 50 s nothing; then from step 80 to 180, stopped."""
    starts = [
        a_start(1, 1000, 1100, last_step=100, seconds={"training": 90.0, "compiling": 10.0}),
        a_start(2, 1150, 1260, from_step=80, last_step=180, seconds={"training": 100.0}),
    ]
    assert seconds_of(measure(starts, now=5000)) == {
        "steps": pytest.approx(72 + 100),
        "steps lost": pytest.approx(18),
        "compile": 10,
        "downtime": 50,
        "other": 10,
    }


def test_starts_without_a_finished_step_lose_what_they_did_and_nothing_else():
    starts = [
        a_start(1, 0, 10, last_step=10, seconds={"training": 10.0}),
        a_start(2, 10, 15, from_step=0, seconds={"training": 5.0}),
        a_start(3, 15, 25, from_step=10, last_step=20, seconds={"training": 10.0}),
    ]
    assert seconds_of(measure(starts, now=99)) == {"steps": 20, "steps lost": 5}


def test_the_first_step_of_a_running_start_is_not_lost():
    starts = [a_start(1, 0, None, seconds={"training": 3.0})]
    assert seconds_of(measure(starts, now=4)) == {"steps": 3, "other": 1}


def test_a_rewind_loses_what_it_returns_over():
    event = {"time": 1.0, "kind": "rewind", "from_step": 120, "to_step": 100}
    start = a_start(1, 0, 14, last_step=120, seconds={"training": 14.0}, events=[event])
    assert seconds_of(measure([start], now=0)) == {
        "steps": pytest.approx(12),
        "steps lost": pytest.approx(2),
    }


def test_a_later_resume_loses_steps_of_several_starts():
    starts = [
        a_start(1, 0, 1, last_step=100),
        a_start(2, 1, 2, from_step=90, last_step=200),
        a_start(3, 2, 3, from_step=50, last_step=300),  # asked for with --resume 50
    ]
    assert lasting_shares(starts) == {1: 0.5, 2: 0.0, 3: 1.0}


def test_a_killed_start_without_a_heartbeat_is_followed_by_downtime():
    starts = [a_start(1, 0, None, ended="killed"), a_start(2, 60, 70)]
    assert seconds_of(measure(starts, now=99)) == {"downtime": 60, "other": 10}


def test_nothing_is_known_of_no_start():
    goodput = measure([], now=5)
    assert goodput.total == 0
    assert goodput.share("other") == 1


@st.composite
def histories(draw: st.DrawFn) -> list[Attempt]:
    starts, time = [], 0.0
    amounts = st.floats(0, 1e6)
    for number in range(1, 1 + draw(st.integers(1, 5))):
        time += draw(amounts) - draw(st.sampled_from([0.0, 100.0]))  # clocks are set back
        seconds = {str(phase): draw(amounts) for phase in draw(st.sets(st.sampled_from(PHASES)))}
        end = draw(st.none() | amounts.map(lambda length, start=time: start + length))
        begin, last = draw(st.integers(0, 50)), draw(st.integers(0, 100))
        from_step, to_step = draw(st.integers(0, 100)), draw(st.integers(0, 100))
        event = {"time": 0.0, "kind": "rewind", "from_step": from_step, "to_step": to_step}
        events = draw(st.sampled_from([[], [event]]))
        steps = {"from_step": begin, "last_step": last, "events": events}
        starts.append(a_start(number, time, end, seconds=seconds, **steps))
    return starts


@settings(deadline=None)
@given(histories(), st.floats(0, 1e7))
def test_shares_add_up_whatever_happened(starts: list[Attempt], now: float):
    goodput = measure(starts, now)
    assert tuple(goodput.seconds) == PARTS
    assert all(seconds >= 0 for seconds in goodput.seconds.values())
    assert sum(map(goodput.share, PARTS)) == pytest.approx(1)
    spent = sum(sum(start.seconds.values()) for start in starts)
    assert goodput.total >= spent * (1 - 1e-9)


def test_the_closing_line():
    seconds = dict.fromkeys(PARTS, 0.0)
    seconds |= {"steps": 147.0, "compile": 9.6, "saving": 1.35, "evaluation": 0.05}
    assert goodput_line(Goodput(seconds)) == (
        "goodput    93.0% of 158 s in steps, compile 6.1%, saving 0.9%"
    )
