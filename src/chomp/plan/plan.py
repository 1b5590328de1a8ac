"""The plan of a configuration for a number of devices."""

import resource
import sys
from dataclasses import asdict, dataclass
from typing import Any

import jax

from chomp.config import Config, TrainConfig
from chomp.hlo.accelerators import GB
from chomp.hlo.figures import Figures, figures
from chomp.plan.estimate import Estimate, by_program, by_utilization
from chomp.plan.largest import largest_fitting
from chomp.plan.propose import Proposal, propose
from chomp.plan.request import Request
from chomp.plan.sizes import Sizes, measure, measure_for, measure_memory_for, with_rows
from chomp.system.console import Console
from chomp.trainer.accelerator_program import fit_without_download
from chomp.trainer.program import TrainProgram


@dataclass(frozen=True)
class Workload:
    """What there is to compute and to keep, on all devices together.

    Attributes:
        parameters: number of them in the model.
        tokens: number of them in a step, padding included.
        flops: model FLOPs of a step.
        checkpoint: bytes of a checkpoint's arrays, not compressed.
    """

    parameters: int
    tokens: int
    flops: int
    checkpoint: int

    @staticmethod
    def of(program: TrainProgram, train: TrainConfig) -> "Workload":
        """Return that of a training program with the section `train` of its configuration."""
        tokens = train.grad_accum * train.batch_size * train.seq_len
        return Workload(
            program.parameters,
            tokens,
            program.model.flops_per_token * tokens,
            sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(program.shapes)),
        )


@dataclass(frozen=True)
class Plan:
    """The plan of a configuration.

    Attributes:
        request: the request that it answers.
        mesh: sizes of the mesh's axes by name.
        workload: what there is to compute and to keep.
        sizes: those of the step as configured.
        figures: those of its program; None: it is that of this machine's processor, or of a TPU.
        estimate: estimate of its time; None: there is nothing to estimate it from.
        largest: sizes of the largest microbatch that fits; None: not one row on each device does,
            or nobody asked.
        proposal: another split; None: nobody asked.
        peak_rss: bytes of this process's memory at most.
    """

    request: Request
    mesh: dict[str, int]
    workload: Workload
    sizes: Sizes
    figures: Figures | None
    estimate: Estimate | None
    largest: Sizes | None
    proposal: Proposal | None
    peak_rss: int

    @property
    def fits(self) -> bool:
        """Whether the step as configured does."""
        return self.sizes.memory.total <= self.request.limit

    def to_json(self) -> dict[str, Any]:
        """Return everything as JSON values: bytes, seconds, FLOPs."""
        request = self.request
        memory, workload = self.sizes.memory, self.workload
        return {
            "for": request.cluster.accelerator.name,
            "devices": request.devices,
            "hosts": request.hosts,
            "mesh": self.mesh,
            "parameters": workload.parameters,
            "tokens_per_step": workload.tokens,
            "model_flops_per_step": workload.flops,
            "batch_size": self.sizes.rows,
            "memory_bytes": asdict(memory) | {"total": memory.total},
            "memory_limit_bytes": request.limit,
            "fits": self.fits,
            "collectives": [
                {
                    "kind": one.kind,
                    "dtype": one.dtype,
                    "group_size": one.size,
                    "trips": one.trips,
                    "times": one.times,
                    "payload_bytes": one.payload,
                    "sent_bytes": one.sent,
                }
                for one in self.sizes.collectives
            ],
            "sent_bytes_per_step": sum(one.times * one.sent for one in self.sizes.collectives),
            "program": self.figures and self.figures.to_json(),
            "mfu": request.mfu,
            "estimate": self.estimate
            and {
                "compute_seconds": self.estimate.compute,
                "communication_seconds": self.estimate.communication,
                "tokens_per_sec_no_overlap": self.estimate.slow,
                "tokens_per_sec_full_overlap": self.estimate.fast,
            },
            "checkpoint_bytes": workload.checkpoint,
            "largest_batch_size": self.largest and self.largest.rows,
            "largest_memory_bytes": self.largest and self.largest.memory.total,
            "proposal": self.proposal and self.proposal.to_json(),
            "upper_bound": request.on_processor,
            "compile_seconds": self.sizes.seconds,
            "peak_rss_bytes": self.peak_rss,
        }


def make_plan(config: Config, request: Request, console: Console) -> Plan:
    """Plan the training step of a configuration.

    JAX uses this machine's processor; with `on_processor` it sees as many devices as are asked for.

    Args:
        config: as the user wrote it.
        request: devices to plan for.
        console: shows what is going on.

    Raises:
        ConfigError: the configuration doesn't fit the devices.
    """
    config = fit_without_download(config, console)
    train_program, sizes, found = _first(config, request, console)
    largest = None
    if request.search:
        console.message(
            f"compiled in {sizes.seconds:.0f} s; now for other microbatches, to find the largest"
        )
        largest = largest_fitting(
            sizes,
            lambda rows: _told(config, rows, request, console),
            request.devices,
            request.limit,
        )
    proposal = None
    if request.propose:
        proposal = propose(config, request.cluster, request.devices, request.limit, console)
    workload = Workload.of(train_program, config.train)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return Plan(
        request,
        dict(train_program.sharding.mesh.shape),
        workload,
        sizes,
        found,
        _estimate(request, sizes, found, workload),
        largest,
        proposal,
        peak if sys.platform == "darwin" else peak * 1024,
    )


def _first(
    config: Config, request: Request, console: Console
) -> tuple[TrainProgram, Sizes, Figures | None]:
    cluster, devices = request.cluster, request.devices
    if request.on_processor:
        console.message(f"compiling the step for {devices} devices of this machine's processor")
        return *measure(config, config.train.batch_size), None
    console.message(f"compiling the step for {devices} x {cluster.accelerator.device}")
    train_program, sizes, program = measure_for(config, cluster.accelerator, devices)
    if cluster.accelerator.platform == "tpu":  # its programs don't say how long their loops are
        return train_program, sizes, None
    return train_program, sizes, figures(program, cluster, devices)


def _told(config: Config, rows: int, request: Request, console: Console) -> Sizes:
    if request.on_processor:
        sizes = measure(config, rows)[1]
    else:
        accelerator = request.cluster.accelerator
        sizes = measure_memory_for(with_rows(config, rows), accelerator, request.devices)
    console.message(
        f"{rows} rows: {sizes.memory.total / GB:.2f} GB on each device ({sizes.seconds:.0f} s)"
    )
    return sizes


def _estimate(
    request: Request, sizes: Sizes, found: Figures | None, workload: Workload
) -> Estimate | None:
    if request.mfu is not None:
        return by_utilization(
            request.cluster,
            sizes.collectives,
            flops=workload.flops,
            tokens=workload.tokens,
            mfu=request.mfu,
            devices=request.devices,
        )
    return None if found is None else by_program(found, workload.tokens)
