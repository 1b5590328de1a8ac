"""The fastest way to split a step's rows into microbatches that fits."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from chomp.config import Config, is_deterministic
from chomp.errors import ConfigError
from chomp.hlo.accelerators import GB
from chomp.hlo.figures import figures
from chomp.hlo.roofline import Cluster
from chomp.plan.sizes import measure_for
from chomp.system.console import Console


@dataclass(frozen=True)
class Split:
    """One way, and what it needs.

    Attributes:
        batch_size: rows of a microbatch.
        grad_accum: microbatches.
        use_checkpoint: blocks are computed again in the backward pass.
        memory: bytes of a device.
        seconds: time of a step, by the estimate.
        compiled: this is the real program; else it is extrapolated from shallower models.
    """

    batch_size: int
    grad_accum: int
    use_checkpoint: bool
    memory: float
    seconds: float
    compiled: bool = False

    def applied_to(self, config: Config) -> Config:
        """Return the config with these values."""
        train = {"batch_size": self.batch_size, "grad_accum": self.grad_accum}
        return _changed(config, train, {"use_checkpoint": self.use_checkpoint})


@dataclass(frozen=True)
class Proposal:
    """Splits that were tried, and the best of them.

    Attributes:
        best: the fastest that fits; None: nothing does.
        tried: all that were looked at.
    """

    best: Split | None
    tried: tuple[Split, ...]

    def to_json(self) -> dict[str, Any]:
        """Return everything as JSON values."""
        return {
            "best": self.best and _json(self.best),
            "tried": [_json(split) for split in self.tried],
        }


Look = Callable[[int, bool], Split]


def propose(
    config: Config, cluster: Cluster, devices: int, limit: float, console: Console
) -> Proposal:
    """Find the fastest split of the config's rows of a step that fits.

    Splits are compared by models of one and two layers: memory and time are lines over the layers.
    The one that they say is the fastest is then compiled as it is; if it doesn't fit, the next.

    Args:
        config: fitted to its tokenizer.
        cluster: the one that would run it.
        devices: how many.
        limit: bytes that a step may use on each.
        console: shows what is going on.

    Raises:
        ConfigError: the configuration doesn't fit the devices.
    """

    def look(batch_size: int, use_checkpoint: bool) -> Split:
        split = extrapolated(config, cluster, devices, batch_size, use_checkpoint)
        console.message(described(split))
        return split

    tried = list(search(config, devices, limit, look))
    best = None
    for split in sorted(tried, key=lambda split: split.seconds):
        # A line may be off by a little, in either direction.
        if split.memory <= 1.1 * limit:
            real = split if split.compiled else measured(config, cluster, devices, split)
            console.message(described(real))
            tried[tried.index(split)] = real
            if real.memory <= limit:
                best = real
                break
    return Proposal(best, tuple(tried))


def described(split: Split) -> str:
    """Return a split in a line."""
    again = "recomputed" if split.use_checkpoint else "kept"
    return (
        f"{split.batch_size} rows x {split.grad_accum}, activations {again}: "
        f"{split.memory / GB:.2f} GB, {split.seconds * 1e3:.0f} ms, "
        f"{'compiled' if split.compiled else 'extrapolated'}"
    )


def search(config: Config, devices: int, limit: float, look: Look) -> Iterator[Split]:
    """Yield splits that are worth a look: around the largest microbatch that fits.

    Large microbatches launch the least, so the search goes from there to smaller ones, over those
    that can't fit, until one fits and the next is no faster.
    """
    rows = config.train.batch_size * config.train.grad_accum
    sizes = [n for n in range(rows, 0, -1) if rows % n == 0 and n % devices == 0]
    if not sizes:
        raise ConfigError([f"--propose: {rows} rows of a step can't be shared by {devices}"])
    # The library recomputes only where the run isn't deterministic.
    settings = (config.model.use_checkpoint,) if is_deterministic(config) else (False, True)
    for use_checkpoint in settings:
        known: list[Split] = []
        left = list(sizes)
        while left:
            split = look(left.pop(0), use_checkpoint)
            known.append(split)
            yield split
            if split.memory > limit:
                # Memory grows with the rows, though not all of it.
                left = [n for n in left if n / split.batch_size * split.memory <= limit] or left[
                    -1:
                ]
            elif (
                len(known) > 1 and split.seconds >= known[-2].seconds and known[-2].memory <= limit
            ):
                break


def extrapolated(
    config: Config, cluster: Cluster, devices: int, batch_size: int, use_checkpoint: bool
) -> Split:
    """Return a split's needs from programs of one and two layers."""
    rows = config.train.batch_size * config.train.grad_accum
    split = Split(batch_size, rows // batch_size, use_checkpoint, 0, 0)
    layers = config.model.num_layers
    if layers <= 2 or config.parallel.gather == "layer":  # one program text for all layers
        return measured(config, cluster, devices, split)
    one, two = (
        measured(_changed(config, {}, {"num_layers": depth}), cluster, devices, split)
        for depth in (1, 2)
    )
    memory = one.memory + (layers - 1) * (two.memory - one.memory)
    seconds = one.seconds + (layers - 1) * (two.seconds - one.seconds)
    return Split(batch_size, split.grad_accum, use_checkpoint, memory, seconds)


def measured(config: Config, cluster: Cluster, devices: int, split: Split) -> Split:
    """Compile the program of a split, and return what it needs."""
    config = split.applied_to(config)
    _, sizes, program = measure_for(config, cluster.accelerator, devices)
    seconds = figures(program, cluster, devices).seconds
    return Split(
        split.batch_size,
        split.grad_accum,
        split.use_checkpoint,
        sizes.memory.total,
        seconds,
        compiled=True,
    )


def _changed(config: Config, train: dict[str, Any], model: dict[str, Any]) -> Config:
    return config.model_copy(
        update={
            "train": config.train.model_copy(update=train),
            "model": config.model.model_copy(update=model),
        }
    )


def _json(split: Split) -> dict[str, Any]:
    return {
        "batch_size": split.batch_size,
        "grad_accum": split.grad_accum,
        "use_checkpoint": split.use_checkpoint,
        "memory_bytes": round(split.memory),
        "estimated_seconds": split.seconds,
        "compiled": split.compiled,
    }
