"""The comparison of number formats, on small cases: `scripts/numerics.py` does many."""

import numerics
import pytest

MODELS = 4


def test_every_option_is_on_in_one_model_and_off_in_another():
    cases = list(numerics.draw_cases(MODELS, seed=0))
    assert len(cases) == MODELS
    for switch in numerics.SWITCHES:
        assert {getattr(case.model, switch) for case in cases} == {True, False}
    assert {case.isolated for case in cases} == {True, False}


@pytest.mark.slow
def test_a_model_is_about_as_near_to_float32_as_the_library(monkeypatch: pytest.MonkeyPatch):
    case = next(numerics.draw_cases(1, seed=3))
    ours, theirs = numerics.errors(case)
    assert 0 < ours.grad <= 1.5 * theirs.grad < 0.1
    assert ours.loss < 1e-2


def test_a_path_that_is_further_away_is_told(capsys: pytest.CaptureFixture[str], monkeypatch):
    far, near = numerics.Errors(1e-3, 2e-2), numerics.Errors(1e-3, 1e-2)
    cases = list(numerics.draw_cases(2, seed=0))
    monkeypatch.setattr(numerics, "errors", lambda case: (far, near))
    assert numerics.compare_models(cases) == 1
    monkeypatch.setattr(numerics, "errors", lambda case: (near, near))
    assert numerics.compare_models(cases) == 0
    assert "gradient 1.000 times" in capsys.readouterr().out
