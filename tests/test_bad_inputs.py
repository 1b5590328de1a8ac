"""The wrong inputs of `scripts/bad_inputs.py`, but for those that need a process of their own."""

from pathlib import Path

import pytest
from bad_input import CASES
from bad_input.case import Case
from bad_input.trial import Bench, faults

from chomp.run.run_folder import RunFolder
from chomp.run_files import RUN_FILES


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    return Bench(tmp_path_factory.mktemp("bench"))


def params():
    for title, cases in CASES.items():
        for case in cases:
            reason = case.waits
            marks = [pytest.mark.xfail(reason=reason, strict=True)] if reason else []
            if not case.alone:
                yield pytest.param(case, id=f"{title}: {case.name}", marks=marks)


@pytest.mark.parametrize("case", list(params()))
def test_a_wrong_input_is_refused_clearly_and_nothing_is_lost(bench: Bench, case: Case):
    outcome = bench.try_case(case)
    assert faults(case, outcome) == [], outcome.err


def test_every_case_has_a_name_of_its_own_and_a_message_to_look_for():
    every = [case for cases in CASES.values() for case in cases]
    assert len({case.name for case in every}) == len(every) >= 70
    assert all(case.says for case in every if case.code)


def test_files_of_a_run_are_no_place_for_others():
    values = vars(RunFolder(Path("run"))).values()
    places = [path for path in values if isinstance(path, Path) and path != Path("run")]
    assert {str(path.relative_to("run")) for path in places} <= set(RUN_FILES)
