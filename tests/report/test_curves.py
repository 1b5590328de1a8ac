import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from chomp.report.curves import BUCKETS, MOST_POINTS, axes_of, curves, last_values

FLOATS = st.floats(-1e6, 1e6)


def test_each_row_of_a_short_run_is_a_point():
    columns = {
        "step": np.array([5.0, 10, 15]),
        "tokens_seen": np.array([50.0, 100, 150]),
        "step_time_s": np.array([1.0, 2, np.nan]),
        "loss": np.array([4.0, np.nan, 3]),
        "eval_loss": np.array([np.nan, 3.5, np.nan]),
    }
    found = curves(columns, axes_of(columns, 7.0))
    assert found["series"]["loss"] == {"at": [0, 2], "mean": [4, 3]}
    assert found["series"]["eval_loss"] == {"at": [1], "mean": [3.5]}
    assert found["axes"] == {
        "step": [5, 10, 15],
        "tokens": [50, 100, 150],
        "time": [5, 15, 15],
        "flops": [35, 70, 105],
    }
    later = curves(columns, axes_of(columns, None), first=2)
    assert later["axes"]["step"] == [15] and later["axes"]["flops"] is None
    assert later["series"]["loss"] == {"at": [0], "mean": [3]}
    assert last_values(columns)["eval_loss"] == (10, 3.5)


@given(st.lists(FLOATS, min_size=40, max_size=400), st.integers(10, 500))
def test_of_many_rows_neither_extremes_nor_the_mean_nor_the_last_are_lost(
    values: list[float], copies: int
):
    loss = np.resize(values, max(MOST_POINTS + 1, len(values) * copies))
    columns = {"step": np.arange(1.0, len(loss) + 1), "loss": loss}
    axes = axes_of(columns, None)
    series = curves(columns, axes)["series"]["loss"]
    assert len(series["at"]) == len(series["mean"]) == BUCKETS + 1
    assert max(series["max"]) == loss.max() and min(series["min"]) == loss.min()
    assert series["mean"][-1] == series["min"][-1] == series["max"][-1] == loss[-1]
    points = curves(columns, axes)["axes"]["step"]
    edges = [points[at] for at in series["at"]]
    assert edges == sorted(set(edges)) and edges[-1] == len(loss)
    for mean, low, high in zip(series["mean"], series["min"], series["max"], strict=True):
        assert low - 1e-6 <= mean <= high + 1e-6


def test_rare_values_of_a_long_run_are_drawn_where_they_are():
    steps = np.arange(1.0, 100_001)
    evaluation = np.where(steps % 1000 == 0, steps, np.nan)
    columns = {"step": steps, "loss": steps, "eval_loss": evaluation}
    found = curves(columns, axes_of(columns, None))
    series = found["series"]["eval_loss"]
    assert series["mean"] == [1000.0 * n for n in range(1, 101)]
    assert [found["axes"]["step"][at] for at in series["at"]] == series["mean"]


def test_tokens_of_rows_without_them_lie_between():
    columns = {"step": np.array([1.0, 2, 3]), "tokens_seen": np.array([10.0, np.nan, 30])}
    assert axes_of(columns, None).tokens.tolist() == [10, 20, 30]
    assert axes_of({"step": np.array([1.0, 2])}, None).tokens.tolist() == [0, 0]
