"""The training step as an accelerator would run it, compiled without one."""

from pathlib import Path
from typing import Any

import jax

from chomp.config import Config
from chomp.hlo.accelerators import Accelerator
from chomp.hlo.compiled import Options, Program, compile_memory, compile_traced
from chomp.hlo.target import devices_of
from chomp.system.console import Console
from chomp.system.jax_runtime import gpu_compiler_options
from chomp.trainer.components import open_tokenizer
from chomp.trainer.program import TrainProgram, build_program, trace_step


def compiler_options(accelerator: Accelerator) -> Options:
    """Return the options that a run on such a device gives its compiler."""
    return gpu_compiler_options() if accelerator.platform == "gpu" else {}


def compile_step_for(
    config: Config, accelerator: Accelerator, devices: int
) -> tuple[TrainProgram, Program]:
    """Compile a configuration's training step for devices that aren't there.

    Args:
        config: fitted to its tokenizer.
        accelerator: each of the devices.
        devices: how many.

    Raises:
        ConfigError: the configuration doesn't fit the devices, or their compiler isn't installed.
    """
    train_program, traced = trace_step_for(config, accelerator, devices)
    return train_program, compile_traced(traced, compiler_options(accelerator))


def memory_of_step_for(
    config: Config, accelerator: Accelerator, devices: int
) -> tuple[TrainProgram, Any]:
    """Return what XLA plans of one device's memory for the same program."""
    train_program, traced = trace_step_for(config, accelerator, devices)
    return train_program, compile_memory(traced, compiler_options(accelerator))


def trace_step_for(
    config: Config, accelerator: Accelerator, devices: int
) -> tuple[TrainProgram, jax.stages.Traced]:
    """Trace the same program; nothing is compiled yet."""
    train_program = build_program(config, accelerator.platform, devices_of(accelerator, devices))
    return train_program, trace_step(train_program, config.train)


def use_virtual_devices(devices: int = 1) -> None:
    """Let JAX see so many devices, all of them this machine's processor; before its first use."""
    jax.config.update("jax_platforms", "cpu")
    if devices > 1:
        jax.config.update("jax_num_cpu_devices", devices)


def fit_without_download(config: Config, console: Console) -> Config:
    """Return the config fitted to its tokenizer, unless that would have to be downloaded."""
    tokenizer = config.data.tokenizer
    if tokenizer.kind == "byte" or Path(str(tokenizer.hf_name_or_path)).exists():
        return open_tokenizer(config, None)[0]
    console.message(
        f"the tokenizer {tokenizer.hf_name_or_path} isn't fetched: the vocabulary is "
        f"model.vocab_size, {config.model.vocab_size:,}"
    )
    return config
