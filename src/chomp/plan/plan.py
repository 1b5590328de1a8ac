"""The plan of a configuration for a number of devices."""

import resource
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import jax

from chomp.config import Config
from chomp.errors import ConfigError
from chomp.models.flops import model_flops_per_token
from chomp.parts import Learner, open_tokenizer
from chomp.plan.accelerators import GB, Accelerator
from chomp.plan.estimate import MFU, RECOMPUTATION, Estimate, estimate
from chomp.plan.largest import largest_fitting
from chomp.plan.sizes import Sizes, measure

USABLE = 0.9
"""Share of a device's memory that a step can use: driver, communication buffers and fragments of
free memory take the rest. JAX itself takes 0.75 unless XLA_PYTHON_CLIENT_MEM_FRACTION is set."""


@dataclass(frozen=True)
class Request:
    """What a plan is asked for.

    Attributes:
        devices: how many.
        hosts: that they are evenly spread over.
        memory: bytes that a step may use on each; None: `USABLE` of the smallest accelerator's.
        accelerators: to estimate the speed on.
        mfu: share of the peak rate on one device; None: `MFU`, less where blocks are recomputed.
        network: bytes a second between hosts for each device; None: the accelerator's usual one.
    """

    devices: int
    hosts: int
    memory: float | None
    accelerators: Sequence[Accelerator]
    mfu: float | None = None
    network: float | None = None
    search: bool = True
    """Find the largest microbatch that fits: several programs instead of one."""

    @property
    def limit(self) -> float:
        """Bytes that a step may use on a device."""
        if self.memory is not None:
            return self.memory
        return USABLE * min(one.memory for one in self.accelerators)


@dataclass(frozen=True)
class Plan:
    """What was found out.

    Attributes:
        request: what was asked for.
        mesh: sizes of the mesh's axes by name.
        parameters: of the model.
        tokens: of a step, padding included.
        flops: model FLOPs of a step, on all devices together.
        mfu: that the estimates take.
        sizes: of the step as configured.
        estimates: for each accelerator of the request; None: its network isn't known.
        checkpoint: bytes of a checkpoint's arrays, not compressed.
        largest: of the largest microbatch that fits; None: not one row on each device does, or
            nobody asked.
        widened: the model computes in bfloat16, of which CPU programs keep much in float32: its
            temporaries and messages are at most as large as here.
        peak_rss: bytes of this process's memory at most.
    """

    request: Request
    mesh: dict[str, int]
    parameters: int
    tokens: int
    flops: int
    mfu: float
    sizes: Sizes
    estimates: tuple[Estimate | None, ...]
    checkpoint: int
    largest: Sizes | None
    widened: bool
    peak_rss: int

    @property
    def fits(self) -> bool:
        """Whether the step as configured does."""
        return self.sizes.memory.total <= self.request.limit

    def to_json(self) -> dict[str, Any]:
        """Return everything as JSON values: bytes, seconds, FLOPs."""
        request = self.request
        memory = self.sizes.memory
        return {
            "devices": request.devices,
            "hosts": request.hosts,
            "mesh": self.mesh,
            "parameters": self.parameters,
            "tokens_per_step": self.tokens,
            "model_flops_per_step": self.flops,
            "batch_size": self.sizes.rows,
            "memory_bytes": asdict(memory) | {"total": memory.total},
            "memory_limit_bytes": request.limit,
            "fits": self.fits,
            "collectives": [
                {
                    "kind": one.kind,
                    "group_size": one.size,
                    "trips": one.trips,
                    "times": one.times,
                    "payload_bytes": one.payload,
                    "sent_bytes": one.sent,
                }
                for one in self.sizes.collectives
            ],
            "sent_bytes_per_step": sum(one.times * one.sent for one in self.sizes.collectives),
            "mfu": self.mfu,
            "estimates": {
                accelerator.name: found
                and {
                    "compute_seconds": found.compute,
                    "communication_seconds": found.communication,
                    "tokens_per_sec_no_overlap": found.slow,
                    "tokens_per_sec_full_overlap": found.fast,
                    "fits": memory.total <= USABLE * accelerator.memory,
                }
                for accelerator, found in zip(request.accelerators, self.estimates, strict=True)
            },
            "checkpoint_bytes": self.checkpoint,
            "largest_batch_size": self.largest and self.largest.rows,
            "largest_memory_bytes": self.largest and self.largest.memory.total,
            "upper_bound": self.widened,
            "compile_seconds": self.sizes.seconds,
            "peak_rss_bytes": self.peak_rss,
        }


def use_virtual_devices(devices: int) -> None:
    """Let JAX see so many devices, all of them this machine's processor; before its first use."""
    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_num_cpu_devices", devices)


def make_plan(config: Config, request: Request, tell: Callable[[str], None]) -> Plan:
    """Plan the training step of a configuration; JAX sees the request's devices already.

    Args:
        config: as the user wrote it.
        request: for what.
        tell: is told what is going on.

    Raises:
        ConfigError: the configuration doesn't fit the devices.
    """
    config = _with_vocabulary(config, tell)
    tell(f"compiling the step for {request.devices} devices")
    rows = config.train.batch_size
    learner, sizes = measure(config, rows)
    largest = None
    if request.search:
        tell(f"compiled in {sizes.seconds:.0f} s; now for other microbatches, to find the largest")
        largest = largest_fitting(
            sizes, lambda rows: _told(config, rows, tell), request.devices, request.limit
        )
    train = config.train
    tokens = train.grad_accum * rows * train.seq_len
    flops = model_flops_per_token(config.model) * tokens
    mfu = request.mfu or MFU * (RECOMPUTATION if _recomputes(config, learner) else 1)
    estimates = tuple(
        estimate(
            accelerator,
            sizes.collectives,
            flops=flops,
            tokens=tokens,
            mfu=mfu,
            devices=request.devices,
            hosts=request.hosts,
            network=request.network,
        )
        for accelerator in request.accelerators
    )
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return Plan(
        request,
        dict(learner.placement.mesh.shape),
        learner.parameters,
        tokens,
        flops,
        mfu,
        sizes,
        estimates,
        sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(learner.shapes)),
        largest,
        "bfloat16" in (config.model.compute_dtype, config.model.param_dtype),
        peak if sys.platform == "darwin" else peak * 1024,
    )


def _told(config: Config, rows: int, tell: Callable[[str], None]) -> Sizes:
    sizes = measure(config, rows)[1]
    tell(f"{rows} rows: {sizes.memory.total / GB:.2f} GB on each device ({sizes.seconds:.0f} s)")
    return sizes


def _recomputes(config: Config, learner: Learner) -> bool:
    return config.model.use_checkpoint and not learner.deterministic


def _with_vocabulary(config: Config, tell: Callable[[str], None]) -> Config:
    """Return the config fitted to its tokenizer, unless that would have to be downloaded."""
    tokenizer = config.data.tokenizer
    if tokenizer.kind == "byte" or Path(str(tokenizer.hf_name_or_path)).exists():
        return open_tokenizer(config, None)[0]
    tell(
        f"the tokenizer {tokenizer.hf_name_or_path} isn't fetched: planning for "
        f"model.vocab_size {config.model.vocab_size:,}"
    )
    return config


def check_hosts(devices: int, hosts: int) -> None:
    """Check that the devices can be spread evenly.

    Raises:
        ConfigError: they can't.
    """
    if devices % hosts:
        fitting = ", ".join(str(n) for n in range(1, devices + 1) if devices % n == 0)
        raise ConfigError(
            [f"--hosts {hosts}: {devices} devices can't be spread evenly; it can be {fitting}"]
        )
