"""What a run says about itself at its start and end."""

import shlex
import shutil
import sys
from pathlib import Path
from typing import Any

import jax

from chomp.distributed import device_bytes, shard_shape
from chomp.optim import Group, group_table
from chomp.trainer.components import Components, derived_values
from chomp.trainer.programs import CompiledStep
from chomp.types import Progress

GIB = 1 << 30


def program_name() -> str:
    """Return what the user typed to call chomp: a path, unless the bare name finds it as well."""
    typed = sys.argv[0]
    found = shutil.which("chomp")
    if Path(typed).name != "chomp" or (found is not None and Path(found).samefile(typed)):
        return "chomp"
    return shlex.quote(typed)


def start_lines(setup: Components, device: str) -> list[str]:
    """Return the lines that a run begins with."""
    config, learner = setup.config, setup.learner
    train, data = config.train, config.data
    shape = f"{train.grad_accum} x {train.batch_size} x {train.seq_len}"
    tokens = train.grad_accum * train.batch_size * train.seq_len
    sizes = dict.fromkeys(Group, 0)
    counts = dict.fromkeys(Group, 0)
    for row in group_table(learner.shapes.params, learner.groups):
        sizes[row.group] += row.size
        counts[row.group] += 1
    groups = ", ".join(
        f"{group} {counts[group]} ({sizes[group]:,})" for group in Group if counts[group]
    )
    mesh = [f"mesh       {_mesh(setup)}"] if learner.placement.mesh.size > 1 else []
    return [
        f"device     {device}",
        *mesh,
        f"model      {config.model.backend}, {learner.parameters:,} parameters, "
        f"vocabulary {config.model.vocab_size:,}",
        f"data       {data.backend}, {data.packing_mode} packing, {data.tokenizer.kind} tokenizer",
        *_evaluation(setup),
        f"batch      {shape} (accum x batch x time) = {tokens:,} tokens a step",
        f"optimizer  {config.optim.name}; parameters by update: {groups}",
    ]


def _evaluation(setup: Components) -> list[str]:
    if not setup.data.evaluated:
        return []
    found = setup.data.evaluation
    documents = f"{found.documents:,} document{'s' if found.documents != 1 else ''}"
    return [f"evaluation {documents}, {found.targets:,} tokens: {setup.data.evaluated}"]


def parameter_table(setup: Components) -> tuple[list[str], list[list[str]]]:
    """Return columns and rows of the parameters: what updates them, and what a device holds."""
    learner = setup.learner
    columns = ["parameter", "shape", "size", "update"]
    rows = [
        [row.path, _by(row.shape), f"{row.size:,}", row.group]
        for row in group_table(learner.shapes.params, learner.groups)
    ]
    if learner.placement.mesh.size > 1:
        columns += ["on a device", "bytes"]
        for row, leaf in zip(rows, jax.tree.leaves(learner.shapes.params), strict=True):
            row += [_by(shard_shape(leaf)), f"{device_bytes(leaf):,}"]
    return columns, rows


def _by(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))


def _mesh(setup: Components) -> str:
    return " x ".join(f"{axis} {size}" for axis, size in setup.learner.placement.mesh.shape.items())


def dry_run_lines(
    setup: Components,
    compiled: CompiledStep,
    step_seconds: float,
    loss: float,
    memory: dict[str, float],
) -> list[str]:
    """Return what a dry run found out."""
    derived, shapes = derived_values(setup)["train"], setup.learner.shapes
    scratch = (
        "" if compiled.temp_bytes is None else f", scratch {compiled.temp_bytes / GIB:.2f} GiB"
    )
    return [
        f"parameters       {setup.learner.parameters:,}",
        f"compile          {compiled.seconds:.1f} s",
        f"first step       {step_seconds:.2f} s, loss {loss:.4f}",
        f"state            parameters {device_bytes(shapes.params) / 1e6:.2f} MB, optimizer "
        f"{device_bytes(shapes.opt_state) / 1e6:.2f} MB on each device",
        f"memory           peak {memory.get('peak_memory_gb', float('nan')):.2f} GiB{scratch}",
        f"tokens per step  {derived['tokens_per_step']:,}",
        f"tokens planned   {derived['tokens_planned']:,}",
        "dry run: nothing was written",
    ]


def summary_lines(
    *,
    last_row: dict[str, Any],
    progress: Progress,
    seconds: float,
    trained: int,
    folder: Path,
    can_resume: bool,
    can_generate: bool,
    steps: int,
    stopped: bool,
    program: str = "chomp",
) -> list[str]:
    """Return the closing summary: results, and the commands to go on with.

    Args:
        last_row: the newest row of metrics; evaluation values from the newest that had them.
        progress: counts at the end.
        seconds: wall time of the whole command.
        trained: targets of this start, without those before a resume.
        folder: of the run.
        can_resume: whether there is a checkpoint.
        can_generate: whether the model can.
        steps: of the configuration.
        stopped: something is left to do.
        program: how the user calls chomp.
    """
    ended = "stopped" if stopped else "finished"
    lines = [f"{ended:<10} after step {progress.step} of {steps}, {seconds:.0f} s"]
    if "loss" in last_row:
        lines.append(f"loss       {last_row['loss']:.4f} nats per token (training)")
    if "eval_loss" in last_row:
        at = last_row["eval_step"]
        lines.append(
            f"evaluation {last_row['eval_loss']:.4f} nats per token, "
            f"{last_row['eval_bits_per_byte']:.4f} bits per byte"
            f"{f' (after step {at})' if at != progress.step else ''}"
        )
    lines.append(f"tokens     {progress.tokens_seen:,} seen, {trained:,} of them now")
    lines.append(f"run folder {folder}")
    if can_resume:
        quoted = shlex.quote(str(folder))
        more = "" if stopped or progress.step < steps else f" -o train.steps={2 * steps}"
        lines.append(f"resume     {program} train --run-dir {quoted} --resume latest{more}")
        if can_generate:
            lines.append(f"generate   {program} generate {quoted} --prompt 'def '")
    return lines
