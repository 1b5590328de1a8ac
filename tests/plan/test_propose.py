"""The search for a split, over memory and time that are as they are told to be."""

from collections.abc import Callable

import pytest

from chomp.config import Config
from chomp.plan.propose import Split, search

ROWS, DEVICES = 64, 4
CONSTANT, A_ROW = 1000, 100


def tried(
    make_config: Callable[..., Config], limit: float, launch: float, again: float = 0.25
) -> list[Split]:
    """Search where a microbatch costs `launch`, and recomputing a share of the time."""
    config = make_config(
        train={"batch_size": 8, "grad_accum": ROWS // 8, "deterministic": False},
        model={"dropout": 0.1},
    )

    def look(batch_size: int, use_checkpoint: bool) -> Split:
        accum = ROWS // batch_size
        memory = CONSTANT + A_ROW * batch_size / (4 if use_checkpoint else 1)
        seconds = (1 + again * use_checkpoint) * (1 + launch * accum)
        return Split(batch_size, accum, use_checkpoint, memory, seconds)

    return list(search(config, DEVICES, limit, look))


@pytest.mark.parametrize("launch", [0.0, 0.1, 10.0])
@pytest.mark.parametrize("limit", [1450, 2000, 10000])
def test_the_fastest_that_fits_is_among_those_tried(
    make_config: Callable[..., Config], limit: float, launch: float
) -> None:
    found = tried(make_config, limit, launch)
    best = min((s for s in found if s.memory <= limit), key=lambda split: split.seconds)
    # Kept activations, in the largest microbatch that fits; or recomputed, in one that is larger.
    kept = max(n for n in (4, 8, 16, 32, 64) if CONSTANT + A_ROW * n <= limit)
    again = max(n for n in (4, 8, 16, 32, 64) if CONSTANT + A_ROW * n / 4 <= limit)
    fastest = min(1 + launch * ROWS / kept, 1.25 * (1 + launch * ROWS / again))
    assert best.seconds == pytest.approx(fastest)
    assert all(split.batch_size % DEVICES == 0 for split in found)
    assert len(found) <= 8


def test_nothing_fits(make_config: Callable[..., Config]) -> None:
    found = tried(make_config, CONSTANT, 0.1)
    assert found and all(split.memory > CONSTANT for split in found)
