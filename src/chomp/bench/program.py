"""`chomp bench program`: the training step's program on an accelerator that isn't there."""

from dataclasses import dataclass
from typing import Any

from chomp.bench.step import Against, changed_config
from chomp.config import Config
from chomp.errors import ConfigError
from chomp.hlo.accelerators import Accelerator
from chomp.hlo.figures import Figures, figures
from chomp.hlo.roofline import Cluster
from chomp.system.console import Console
from chomp.trainer.accelerator_program import compile_step_for, fit_without_download


@dataclass(frozen=True)
class ProgramBench:
    """A program's figures, and those of another that does the same.

    Attributes:
        accelerator: the one that both are compiled for.
        devices: how many.
        parameters: number of them in the model.
        tokens: number of them in a step, padding included.
        model_flops: those of a step.
        figures: those of the config's own program.
        against: name of the other.
        other: its figures.
    """

    accelerator: Accelerator
    devices: int
    parameters: int
    tokens: int
    model_flops: int
    figures: Figures
    against: Against | None = None
    other: Figures | None = None

    @property
    def utilization(self) -> float:
        """Model FLOPs of a second over the devices' peak."""
        peak = self.devices * self.accelerator.bf16
        return self.model_flops / self.figures.seconds / peak

    def to_json(self) -> dict[str, Any]:
        """Return everything as JSON values; those of the other program under `against`."""
        values = {
            "for": self.accelerator.name,
            "devices": self.devices,
            "parameters": self.parameters,
            "tokens_per_step": self.tokens,
            "model_flops_per_step": self.model_flops,
            "estimated_tokens_per_second": self.tokens / self.figures.seconds,
            "estimated_mfu": self.utilization,
            **self.figures.to_json(),
        }
        if self.other is not None:
            values["against"] = {"program": self.against, **self.other.to_json()}
            values["estimated_speedup"] = self.other.seconds / self.figures.seconds
        return values


def bench_program(
    config: Config,
    accelerator: Accelerator,
    devices: int,
    against: Against | None,
    console: Console,
) -> ProgramBench:
    """Compile the training step for an accelerator, and count and estimate what it does.

    Args:
        config: as the user wrote it.
        accelerator: the one to compile for.
        devices: how many.
        against: the other program.
        console: shows what is going on.

    Raises:
        ConfigError: the configuration doesn't fit the devices, or their compiler isn't installed.
    """
    if accelerator.platform == "tpu":
        text = "only programs of GPUs are counted; chomp plan knows its memory"
        raise ConfigError([f"--for {accelerator.name}: {text}"])
    config = fit_without_download(config, console)
    cluster = Cluster(accelerator, devices)
    where = f"{devices} x {accelerator.device}"
    console.message(f"compiling the step for {where}")
    train_program, program = compile_step_for(config, accelerator, devices)
    other = None
    if against:
        console.message(f"compiling the step to compare it with: {against}")
        other = figures(
            compile_step_for(changed_config(config, against), accelerator, devices)[1],
            cluster,
            devices,
        )
    train = config.train
    tokens = train.grad_accum * train.batch_size * train.seq_len
    return ProgramBench(
        accelerator,
        devices,
        train_program.parameters,
        tokens,
        train_program.model.flops_per_token * tokens,
        figures(program, cluster, devices),
        against,
        other,
    )
