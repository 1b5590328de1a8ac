import pytest

from chomp.errors import ConfigError
from chomp.sweep.arms import Arm, Axis, Choice, check_baseline, make_arms, read_axes, read_axis


@pytest.mark.parametrize(
    ("text", "key", "values"),
    [
        ("optim.lr=1e-3,3e-3", "optim.lr", ("1e-3", "3e-3")),
        ("train.steps=20", "train.steps", ("20",)),
        ("data.files=[a,b], [c]", "data.files", ("[a,b]", "[c]")),
        (
            "optim={name: muon, muon: {lr_scale: 1}},{name: adamw}",
            "optim",
            ("{name: muon, muon: {lr_scale: 1}}", "{name: adamw}"),
        ),
        ("data.text_key='a,b',c", "data.text_key", ("'a,b'", "c")),
        ("train.init_from=runs/a=1,null", "train.init_from", ("runs/a=1", "null")),
    ],
)
def test_commas_in_brackets_and_quotes_divide_nothing(text: str, key: str, values: tuple[str, ...]):
    assert read_axis(text) == Axis(key, values)


def test_all_that_is_wrong_is_said_at_once():
    with pytest.raises(ConfigError) as caught:
        read_axes(["optim.lr", "optim.lr=1,", "train.seed=1", "train.seed=2"])
    assert caught.value.problems == [
        "'optim.lr': must have the form key=value or key=value,value",
        "optim.lr: a value is missing (got '1,'); write null for none",
        "train.seed: is given twice; write its values with commas between",
    ]


AXES = [Axis("a", ("1", "2")), Axis("b", ("x",)), Axis("c", ("3", "4"))]


def test_arms_are_all_combinations():
    arms = make_arms(AXES, Choice(), None)
    assert [arm.name for arm in arms] == ["a=1,c=3", "a=1,c=4", "a=2,c=3", "a=2,c=4"]
    assert arms[1] == Arm("a=1,c=4", ("a=1", "c=4"))


def test_values_can_go_together():
    assert [arm.name for arm in make_arms(AXES, Choice(zipped=True), None)] == [
        "a=1,c=3",
        "a=2,c=4",
    ]
    with pytest.raises(ConfigError, match=r"as many values \(got a 2, c 3\)"):
        make_arms([AXES[0], Axis("c", ("1", "2", "3"))], Choice(zipped=True), None)


def test_no_two_arms_are_the_same():
    twice = Axis("b", ("x", "y", "x"))
    with pytest.raises(ConfigError, match="b=x: is given twice"):
        make_arms([twice], Choice(), None)
    with pytest.raises(ConfigError, match="a=1,b=x: is given twice"):
        make_arms([Axis("a", ("1", "2", "1")), twice], Choice(zipped=True), None)
    arms = make_arms([Axis("a", ("1", "1", "2")), twice], Choice(zipped=True), None)
    assert [arm.name for arm in arms] == ["a=1,b=x", "a=1,b=y", "a=2,b=x"]


def test_more_random_ones_begin_with_the_same():
    axes = [Axis(key, tuple(map(str, range(6)))) for key in "ab"]
    few, more = (make_arms(axes, Choice(random=count), None) for count in (4, 9))
    assert len(few) == 4 and more[:4] == few and len(set(more)) == 9
    assert few != make_arms(axes, Choice(), None)[:4]


def test_the_baseline_is_an_arm():
    arms = make_arms(AXES, Choice(), "default")
    assert arms[0] == Arm("default", ()) and len(arms) == 5
    assert check_baseline(arms, "default") == "default"
    assert check_baseline(arms[1:], None) == "a=1,c=3"
    with pytest.raises(ConfigError, match="there is no such arm; default, or a=1,c=3"):
        check_baseline(arms[1:], "a=1")
    assert make_arms([AXES[1]], Choice(), None) == [Arm("default", ())]
