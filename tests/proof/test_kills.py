"""When runs are killed."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chomp.proof.kills import (
    FOLLOWING,
    Kill,
    Known,
    Moment,
    Times,
    View,
    in_order,
    is_now,
    plan_kills,
)
from chomp.run.heartbeat import PHASES, HeartbeatReading, Phase, PhaseTimes

SECONDS = st.floats(0, 100)


@st.composite
def known(draw: st.DrawFn) -> Known:
    steps = draw(st.integers(8, 60))

    def places() -> list[int]:
        return sorted(draw(st.sets(st.integers(1, steps), max_size=5)))

    every = max(2, steps // 7)
    return Known(
        steps=steps,
        step_seconds=draw(SECONDS),
        evaluations=Times(places(), draw(SECONDS)),
        samples=Times(places(), draw(SECONDS)),
        saves=Times(range(every, steps + 1, every), draw(SECONDS)),
        save_every=every,
        epoch_ends=places(),
        start_seconds=draw(SECONDS),
    )


class TestPlan:
    @given(known(), st.integers(1, 40), st.integers())
    def test_covers_every_moment_that_there_is(self, seen: Known, count: int, seed: int):
        kills = plan_kills(count, seen, seed)
        assert len(kills) == count
        missing = {
            moment
            for moment, steps in (
                (Moment.EVALUATION, seen.evaluations.steps),
                (Moment.SAMPLE, seen.samples.steps),
                (Moment.EPOCH, seen.epoch_ends),
            )
            if not steps
        }
        counts = Counter(kill.moment for kill in kills)
        assert not missing & set(counts)
        if count >= len(Moment) - len(missing):
            assert set(counts) == set(Moment) - missing
        assert max(counts.values()) - min(counts.values()) <= 1

    @given(known(), st.integers(1, 40), st.integers())
    def test_places_are_where_the_moments_are(self, seen: Known, count: int, seed: int):
        for kill in plan_kills(count, seen, seed):
            assert 0 <= kill.step <= seen.steps
            assert 0 <= kill.delay <= 100 * seen.steps
            places = {
                Moment.EVALUATION: seen.evaluations.steps,
                Moment.SAMPLE: seen.samples.steps,
                Moment.SAVE: seen.saves.steps,
                Moment.STEP: range(2 * seen.save_every + 1, seen.steps),
                Moment.EPOCH: [step - 1 for step in seen.epoch_ends],
            }
            if kill.moment in places:
                assert kill.step in places[kill.moment]

    @given(known(), st.integers(1, 40), st.integers())
    def test_the_seed_decides(self, seen: Known, count: int, seed: int):
        assert plan_kills(count, seen, seed) == plan_kills(count, seen, seed)

    def test_another_seed_has_other_kills(self):
        once, saves = Times([13], 1.0), Times([5, 10], 0.1)
        seen = Known(40, 0.1, once, once, saves, 5, [7], 3.0)
        assert plan_kills(9, seen, 0) != plan_kills(9, seen, 1)


def test_the_time_of_work_is_shared_by_the_times_that_it_was_done():
    assert Times.of([4, 8, 12], 6.0) == Times([4, 8, 12], 2.0)
    assert Times.of([], 0.5).seconds == 0.5


class TestOrder:
    @given(known(), st.integers(1, 40), st.integers())
    def test_keeps_all_and_begins_with_one_that_follows_none(
        self, seen: Known, count: int, seed: int
    ):
        kills = plan_kills(count, seen, seed)
        order = in_order(kills)
        assert Counter(order) == Counter(kills)
        assert order[0].moment not in FOLLOWING
        steps = [kill.step for kill in order if kill.moment not in FOLLOWING]
        assert steps == sorted(steps)

    def test_what_follows_gets_something_to_follow(self):
        left = [Kill(Moment.RESUME, 3, 0.1), Kill(Moment.TWICE, 9, 0.1)]
        first, *rest = in_order(left)
        assert first.moment is Moment.STEP
        assert rest == left


def view(phase: Phase, finished: int, *, writing: bool = False, newest: int = 0, resumed: int = 0):
    times = PhaseTimes(dict.fromkeys(PHASES, 0.0), 0.0)
    beat = HeartbeatReading(1, 1, phase, 9, finished + 1, finished, 0.0, 0.0, times)
    return View(beat, writing, newest, resumed)


@pytest.mark.parametrize(
    ("moment", "there", "not_there"),
    [
        (Moment.STEP, view(Phase.TRAINING, 10), view(Phase.EVALUATING, 10)),
        (Moment.STEP, view(Phase.WAITING, 12), view(Phase.WAITING, 9)),
        (Moment.EVALUATION, view(Phase.EVALUATING, 10), view(Phase.SAMPLING, 10)),
        (Moment.SAMPLE, view(Phase.SAMPLING, 10), view(Phase.SAMPLING, 9)),
        (Moment.SAVE, view(Phase.TRAINING, 11, writing=True), view(Phase.TRAINING, 11)),
        (Moment.SAVE, view(Phase.SAVING, 10), view(Phase.SAVING, 9)),
        (Moment.EPOCH, view(Phase.TRAINING, 11), view(Phase.TRAINING, 12)),
        (
            Moment.TWICE,
            view(Phase.TRAINING, 11, newest=9, resumed=9),
            view(Phase.TRAINING, 13, newest=12, resumed=9),
        ),
        (Moment.START, view(Phase.RESTORING, 9, resumed=9), view(Phase.TRAINING, 9, resumed=9)),
        (Moment.RESUME, view(Phase.WAITING, 9, resumed=9), view(Phase.RESTORING, 9, resumed=9)),
        (Moment.RESUME, view(Phase.TRAINING, 10, resumed=9), view(Phase.TRAINING, 11, resumed=9)),
    ],
)
def test_moments_are_told_apart(moment: Moment, there: View, not_there: View):
    kill = Kill(moment, 10, 0.0)
    assert is_now(kill, there)
    assert not is_now(kill, not_there)
