from pathlib import Path
from typing import Any

import jax.numpy as jnp
import pytest

from chomp.errors import DivergedError
from chomp.trainer.loss_monitor import Incident, LossMonitor, LossPolicy, Rewind
from chomp.types import BatchStats, Progress, SourceCount, StepMetrics

NAN = float("nan")
WINDOW = 40


class Watched:
    """A run whose losses are given; NaN is a rejected update. Batch numbers are steps + 5."""

    def __init__(self, before: list[float] | None = None, in_a_row: int = 0, **reaction: Any):
        defaults = {"to_divergence": "stop", "to_spikes": "warn", "threshold": 10.0, "limit": 4}
        self.reported: list[Incident] = []
        self.watch = LossMonitor(
            LossPolicy(**({"window": WINDOW} | defaults | reaction)),
            before or [],
            rejected=2,
            report=self.reported.append,
            run="runs/mine",
            in_a_row=in_a_row,
        )
        self.step, self.rejected = 0, 2
        self.check_always = True

    def see(self, *losses: float) -> None:
        for loss in losses:
            self.step += 1
            self.rejected += loss != loss
            values = (jnp.asarray(loss), jnp.asarray(1.0), jnp.asarray(3), self.rejected)
            progress = Progress(self.step, self.step + 5)
            stats = BatchStats((SourceCount(3),), 3, 1, 0, 0, 0, (), 0xABC + self.step)
            self.watch.collect(progress, stats, StepMetrics(*values))
        if self.check_always:
            self.watch.check()


def noisy(count: int) -> list[float]:
    return [3.0 + 0.01 * (i * 7 % 5) for i in range(count)]


def test_a_rejected_update_stops_the_run_and_names_its_batch():
    watched = Watched()
    watched.see(3.0, 2.9)
    with pytest.raises(DivergedError) as error:
        watched.see(2.8, NAN, 2.7)
    for part in ("loss nan", "at step 4", "batch 9", f"{0xABC + 4:016x}", "optim.lr"):
        assert part in str(error.value)
    assert "`chomp trace runs/mine --step 4`" in str(error.value)
    assert "more step" not in str(error.value)


def test_skipping_goes_on_counting_where_a_run_was_resumed():
    first = Watched(to_divergence="skip")
    first.see(3.0, NAN, NAN)
    assert first.watch.in_a_row == 2
    again = Watched(to_divergence="skip", in_a_row=first.watch.in_a_row)
    with pytest.raises(DivergedError, match="4 in a row"):
        again.see(NAN, NAN)


def test_skipping_reports_each_and_gives_up_after_so_many_in_a_row():
    watched = Watched(to_divergence="skip")
    watched.see(3.0, NAN, NAN, NAN, 2.9)
    watched.see(NAN, NAN)
    assert [incident.step for incident in watched.reported] == [2, 3, 4, 6, 7]
    with pytest.raises(DivergedError, match="4 in a row"):
        watched.see(NAN, NAN)


@pytest.mark.parametrize(
    ("losses", "offending"),
    [
        ([3.0, NAN, 2.9], [2]),
        ([NAN, 2.9, NAN, NAN, 2.8], [1, 3, 4]),
        # Nothing good behind it: the parameters may be broken, only the first batch is known.
        ([3.0, NAN, NAN, NAN], [2]),
        ([NAN, 3.0, NAN, NAN], [1, 3]),
    ],
)
def test_rewinding_leaves_out_the_batches_that_did_it(losses: list[float], offending: list[int]):
    with pytest.raises(Rewind) as error:
        Watched(to_divergence="rewind").see(*losses)
    assert [incident.step for incident in error.value.incidents] == offending
    assert [incident.batch for incident in error.value.incidents] == [n + 5 for n in offending]


def test_a_spike_is_reported_once_and_a_fall_or_noise_never():
    watched = Watched()
    watched.see(*noisy(30), 3.1, 3.05, 0.5, 3.02)
    assert watched.reported == []
    watched.see(9.0, 9.0, 3.0)
    [incident] = watched.reported
    assert (incident.step, incident.batch) == (35, 40)
    assert "loss 9.0000 at step 35" in incident.what


def test_losses_that_nobody_asks_for_are_judged_in_time():
    watched = Watched()
    watched.check_always = False
    watched.see(NAN, *noisy(998))
    with pytest.raises(DivergedError, match="at step 1 "):
        watched.see(3.0)


def test_a_new_level_is_soon_the_usual_one():
    watched = Watched()
    watched.see(*noisy(30), *[loss + 5 for loss in noisy(60)])
    assert [incident.step for incident in watched.reported] == [31]


def test_spikes_are_ignored_or_rewound_if_asked():
    ignoring = Watched(to_spikes="ignore")
    ignoring.see(*noisy(30), 900.0)
    assert ignoring.reported == []
    with pytest.raises(Rewind) as error:
        Watched(to_spikes="rewind").see(*noisy(30), 900.0, 3.0)
    assert [incident.step for incident in error.value.incidents] == [31]


def test_a_resumed_watch_judges_as_if_it_had_seen_all():
    first = Watched()
    first.see(*noisy(WINDOW + 9))
    assert len(first.watch.losses) == WINDOW
    resumed = Watched(before=first.watch.losses)
    for watched in (first, resumed):
        watched.see(3.5)
    assert [i.what.split(" is ")[1] for i in first.reported] == [
        i.what.split(" is ")[1] for i in resumed.reported
    ]
    assert len(resumed.reported) == 1


def test_few_losses_and_equal_ones_call_nothing_unusual():
    watched = Watched()
    watched.see(*noisy(10), 50.0)
    equal = Watched()
    equal.see(*[2.0] * 30, 2.01)
    assert watched.reported == equal.reported == []


def test_a_resumed_run_goes_on_counting_what_it_skips_and_names_itself(
    chomp: Any, config_file: Any, tmp_path: Path
):
    train = {"on_divergence": "skip", "divergence_limit": 5}
    config = config_file(train=train, optim={"lr": 1e38})
    run = tmp_path / "my run"
    assert chomp("train", config, "--run-dir", run).code == 0
    done = chomp("train", config, "--run-dir", run, "--resume", "latest", "-o", "train.steps=9")
    assert done.code == 1
    assert "5 in a row: train.divergence_limit is 5" in done.err
    assert f"`chomp trace '{run}' --step 6`" in done.err
