"""The time of a run by what it was spent on, and the share that steps have of it."""

from collections.abc import Sequence
from typing import NamedTuple

from chomp.run.heartbeat import Phase
from chomp.run.record import Attempt, step_ranges

USEFUL, REPLAYED = "steps", "steps lost"
DOWNTIME, OTHER = "downtime", "other"
_NAMES: dict[str, str] = {
    Phase.COMPILING: "compile",
    Phase.WAITING: "data wait",
    Phase.SAVING: "saving",
    Phase.EVALUATING: "evaluation",
    Phase.SAMPLING: "sampling",
    Phase.STARTING: "starting",
    Phase.RESTORING: "starting",
    Phase.CLOSING: "closing",
}
PARTS = (USEFUL, REPLAYED, *dict.fromkeys(_NAMES.values()), DOWNTIME, OTHER)


class Goodput(NamedTuple):
    """Seconds of wall time since the first start, by what they went into."""

    seconds: dict[str, float]
    """By name, in the order of `PARTS`."""

    @property
    def total(self) -> float:
        """All seconds."""
        return sum(self.seconds.values())

    def share(self, part: str) -> float:
        """Return a part's share of all; the shares of all parts add up to 1."""
        return self.seconds[part] / self.total if self.total else float(part == OTHER)


def measure(starts: Sequence[Attempt], now: float) -> Goodput:
    """Account for the time from the first start to the end of the last, or to `now` if it runs.

    Steps that a later start, or a rewind, did again are lost: the training time of a start is
    divided in proportion to its steps.

    Args:
        starts: those of one run, the newest one completed from its heartbeat.
        now: seconds since 1970.
    """
    seconds = dict.fromkeys(PARTS, 0.0)
    lasting = lasting_shares(starts)
    previous_end = starts[0].time if starts else now
    for start in starts:
        spent = sum(start.seconds.values())
        end = now if start.ended is None else start.end_time or start.time + spent
        seconds[DOWNTIME] += max(0.0, start.time - previous_end)
        for phase, value in start.seconds.items():
            if phase == Phase.TRAINING:
                seconds[USEFUL] += value * lasting[start.number]
                seconds[REPLAYED] += value * (1 - lasting[start.number])
            else:
                seconds[_NAMES.get(phase, OTHER)] += value
        # A clock that was set back leaves less than what was measured.
        seconds[OTHER] += max(0.0, end - start.time - spent)
        previous_end = max(end, start.time + spent)
    return Goodput(seconds)


def lasting_shares(starts: Sequence[Attempt]) -> dict[int, float]:
    """Return for each start's number the share of its steps that were never done again.

    A start that ended without finishing a step has 0.
    """
    done = dict.fromkeys((start.number for start in starts), 0)
    lasting = dict(done)
    lowest = float("inf")
    for number, begin, end in reversed(step_ranges(starts)):
        done[number] += end - begin
        lasting[number] += max(0, int(min(end, lowest)) - begin)
        lowest = min(lowest, begin)
    return {
        start.number: lasting[start.number] / done[start.number]
        if done[start.number]
        else float(start.ended is None)
        for start in starts
    }


def goodput_line(goodput: Goodput) -> str:
    """Return the line of the closing summary: the share of steps, then what took most else."""
    others = sorted(
        (part for part in PARTS if part != USEFUL and goodput.share(part) >= 0.0005),
        key=lambda part: -goodput.seconds[part],
    )
    shares = [f"{part} {goodput.share(part):.1%}" for part in others]
    steps = f"{goodput.share(USEFUL):.1%} of {goodput.total:.0f} s in {USEFUL}"
    return "goodput    " + ", ".join([steps, *shares])
