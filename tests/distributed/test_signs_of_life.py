"""Who is lost, by the signs of life that were heard; this process is number 1 of 0, 1 and 2."""

from chomp.distributed.signs_of_life import Heard, Silence


def heard(answers: int, *beats: int, ended: int | None = None) -> Heard:
    lives = {
        index: {"beat": beat, "stop": None, "ended": {"exit_code": 0} if index == ended else None}
        for index, beat in enumerate(beats)
    }
    return Heard(answers, lives)


def test_who_says_nothing_for_as_long_as_the_limit_is_lost():
    silence = Silence(4.0)
    for turn in range(4):
        assert silence.count(heard(turn, turn, 0, 7), 1, 1.0) == {}
    assert silence.lost == set()
    # The process itself, whose beat doesn't change either, isn't among them.
    assert silence.count(heard(4, 4, 0, 7), 1, 1.0) == {2: 4.0}
    assert silence.lost == {2}


def test_who_speaks_again_in_time_is_not():
    silence = Silence(4.0)
    for turn in range(40):
        assert silence.count(heard(turn, turn, 0, turn // 4), 1, 1.0) == {}


def test_who_has_ended_need_not_say_more():
    silence = Silence(4.0)
    for turn in range(9):
        assert silence.count(heard(turn, turn, 0, 7, ended=2), 1, 1.0) == {}
    assert heard(1, 1, 1, 1, ended=2).ended() == {2}


def test_without_answers_it_is_process_0_and_nobody_else():
    silence = Silence(4.0)
    lost = [silence.count(heard(3, 1, 1, 1), 1, 1.0) for _ in range(7)]
    first = next(found for found in lost if found)
    assert list(first) == [0] and first[0] >= 4
    assert silence.lost == {0}


def test_time_in_which_this_process_was_suspended_does_not_count():
    silence = Silence(4.0)
    silence.count(heard(1, 1, 1, 1), 1, 0.8)
    assert silence.count(heard(2, 2, 1, 1), 1, 3600.0) == {}
    assert silence.interval == 0.8


def test_a_shortened_silence_is_a_few_signs():
    silence = Silence(60.0)
    assert silence.shorten() == 5.0
    for turn in range(5):
        assert silence.count(heard(turn, turn, 0, 7), 1, 1.0) == {}
    assert silence.count(heard(6, 6, 0, 7), 1, 1.0) == {2: 5.0}
    assert Silence(4.0).shorten() == 4.0
