import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from chomp.checkpoint.checkpointer import Checkpointer
from chomp.trainer.program import build_program
from chomp.types import Progress, TrainState

META = {"config": {"train": {"steps": 9}}, "versions": {"jax": "1"}}


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[Callable[..., Checkpointer]]:
    """Open a folder of checkpoints, `tmp_path/checkpoints` unless another is given."""
    alive: list[Checkpointer] = []

    def open_(folder: Path = tmp_path / "checkpoints", **options: Any) -> Checkpointer:
        alive.append(Checkpointer(folder, **options))
        return alive[-1]

    yield open_
    for checkpoints in alive:
        checkpoints.close()


@pytest.fixture(scope="session")
def shapes(make_config: Callable[..., Any]) -> TrainState:
    """A state with all that is special: Muon's momentum, bfloat16, keys, counts."""
    config = make_config(
        "megalodon", optim={"name": "muon"}, model={"param_dtype": "bfloat16", "swiglu": True}
    )
    return build_program(config).shapes


@pytest.fixture(scope="session")
def state(shapes: TrainState) -> TrainState:
    rng = np.random.default_rng(0)

    def fill(leaf: Any) -> jax.Array:
        if jnp.issubdtype(leaf.dtype, jnp.floating):
            return jnp.asarray(rng.normal(size=leaf.shape), leaf.dtype)
        return jnp.asarray(rng.integers(0, 2**31 - 1, leaf.shape), leaf.dtype)

    return jax.tree.map(fill, shapes)


@pytest.fixture(scope="session")
def saved_folder(tmp_path_factory: pytest.TempPathFactory, state: TrainState) -> Path:
    """A folder with the checkpoints of steps 10, 20 and 30. Not to be written to."""
    folder = tmp_path_factory.mktemp("saved") / "checkpoints"
    checkpoints = Checkpointer(folder)
    for step in (10, 20, 30):
        checkpoints.save(state, Progress(step, tokens_seen=100 * step), {}, META)
    assert checkpoints.problems() == []
    checkpoints.close()
    return folder


@pytest.fixture
def mount(tmp_path: Path) -> Iterator[Callable[..., Path]]:
    """Mount a disk in memory: `mount("20m")`, of 20 MB."""
    places: list[Path] = []

    def mounted(size: str) -> Path:
        place = tmp_path / f"disk{len(places)}"
        place.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(place)]
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=False)
        except FileNotFoundError:
            pytest.skip("no `mount` here")
        if done.returncode:
            pytest.skip(f"mounting isn't allowed here: {done.stderr.strip()}")
        places.append(place)
        return place

    yield mounted
    for place in places:
        subprocess.run(["umount", "--lazy", str(place)], check=True)
