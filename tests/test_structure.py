"""What keeps the program easy to follow: few root modules, short signatures, few closures."""

import pytest
import structure


@pytest.fixture(scope="module")
def figures() -> dict:
    return structure.measure()


def test_few_root_modules(figures: dict):
    assert len(figures["root_modules"]) <= structure.MOST_ROOT_MODULES


def test_few_closures_in_the_trainer(figures: dict):
    assert figures["lambdas_in_trainer"] <= structure.MOST_LAMBDAS


def test_signatures_are_short_and_classes_small(figures: dict):
    assert figures["functions_with_many_parameters"] == []
    assert figures["classes_with_many_fields"] == []


def test_few_parameters_are_functions(figures: dict):
    assert figures["callables_per_100_functions"] <= structure.MOST_CALLABLES


def test_what_is_too_much_is_found(tmp_path):
    (tmp_path / "trainer").mkdir()
    fields = "\n".join(f"    f{i}: int" for i in range(10))
    args = ", ".join("abcdefgh")
    (tmp_path / "trainer" / "one.py").write_text(
        f"class Wide:\n{fields}\n\n\ndef long({args}): return lambda: 0\n"
        "\n\ndef handed(work: 'Callable[[], int]'): ...\n"
        "\n\nWork = Callable[[int], int]\n\n\ndef on(work: Work | None, name: str): ...\n"
    )
    found = structure.measure(tmp_path)
    assert found["functions_with_many_parameters"] == ["trainer/one.py:14 long (8)"]
    assert found["classes_with_many_fields"] == ["trainer/one.py:1 Wide (10)"]
    assert found["lambdas_in_trainer"] == 1
    assert found["callables_per_100_functions"] == 66.67
