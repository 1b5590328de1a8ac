"""What a run says about itself at its start and end."""

import shlex
import time
from operator import itemgetter

import jax

from chomp.config.data import DataConfig
from chomp.data.mixture import Schedule
from chomp.distributed import device_bytes, shard_shape
from chomp.optim import Group, group_table
from chomp.run.goodput import goodput_line
from chomp.system.json_text import parse_json
from chomp.system.plugins import plugin_options
from chomp.system.terminal import program_name
from chomp.tracking.tracker import Row
from chomp.trainer.components import Components, derived_values
from chomp.trainer.context import RunContext
from chomp.trainer.first_step import FirstStep
from chomp.trainer.loop import LoopResult, StopReason
from chomp.types import Progress

GIB = 1 << 30


def start_lines(components: Components, device: str) -> list[str]:
    """Return the lines that a run begins with."""
    config, program = components.config, components.program
    train, data = config.train, config.data
    shape = f"{train.grad_accum} x {train.batch_size} x {train.seq_len}"
    tokens = train.tokens_per_step
    sizes = dict.fromkeys(Group, 0)
    counts = dict.fromkeys(Group, 0)
    for row in group_table(program.shapes.params, program.groups):
        sizes[row.group] += row.size
        counts[row.group] += 1
    groups = ", ".join(
        f"{group} {counts[group]} ({sizes[group]:,})" for group in Group if counts[group]
    )
    mesh = [f"mesh       {_mesh(components)}"] if program.sharding.mesh.size > 1 else []
    return [
        f"device     {device}",
        *mesh,
        f"model      {config.model.backend}, {program.parameters:,} parameters, "
        f"vocabulary {config.model.vocab_size:,}",
        f"data       {_documents(data)}, {data.packing_mode} packing, "
        f"{data.tokenizer.kind} tokenizer",
        *_evaluation(components),
        f"batch      {shape} (accum x batch x time) = {tokens:,} tokens a step",
        f"optimizer  {config.optim.name}; parameters by update: {groups}",
    ]


def _documents(data: DataConfig) -> str:
    if not data.sources:
        return data.backend
    schedule = Schedule.of(data)
    weights = schedule.at(0)
    shares = ", ".join(
        f"{name} {100 * weights[name] / sum(weights.values()):.3g}%" for name in data.by_source()
    )
    until = next((f" until step {start:,}" for start, _ in schedule.stages if start), "")
    return f"{len(data.sources)} sources ({shares}{until})"


def _evaluation(components: Components) -> list[str]:
    data = components.data
    return [
        f"evaluation {f'{name}: ' if name else ''}{found.documents:,} "
        f"document{'s' if found.documents != 1 else ''}, {found.targets:,} tokens: "
        f"{data.evaluated[name]}"
        for name, found in {**data.evaluation.sources, **data.evaluation.others}.items()
        if data.evaluated[name]
    ]


def parameter_table(components: Components) -> tuple[list[str], list[list[str]]]:
    """Return columns and rows of the parameters: what updates them, and what a device holds."""
    program = components.program
    columns = ["parameter", "shape", "size", "update"]
    rows = [
        [row.path, _by(row.shape), f"{row.size:,}", row.group]
        for row in group_table(program.shapes.params, program.groups)
    ]
    if program.sharding.mesh.size > 1:
        columns += ["on a device", "bytes"]
        for row, leaf in zip(rows, jax.tree.leaves(program.shapes.params), strict=True):
            row += [_by(shard_shape(leaf)), f"{device_bytes(leaf):,}"]
    return columns, rows


def _lowest(components: Components, context: RunContext, latest: Row) -> list[str]:
    """Return a line about the best evaluation of the run, if the newest one is clearly worse."""
    path = context.folder.inside(components.config.logging.metrics_file)
    if not path.is_file():  # a pipe would be waited for
        return []
    try:
        with path.open("rb") as file:
            rows = [parse_json(line) for line in file if b'"eval_loss": ' in line]
    except (OSError, ValueError):  # it is somebody else's, or gone
        return []
    rows = [row for row in rows if row["eval_loss"] is not None]
    best = min(rows, key=itemgetter("eval_loss"), default=latest)
    if best["eval_loss"] > 0.99 * latest["eval_loss"]:
        return []
    return [
        f"lowest     {best['eval_loss']:.4f} nats per token, {best['eval_bits_per_byte']:.4f} bits "
        f"per byte (after step {best['step']})"
    ]


def _by(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))


def _mesh(components: Components) -> str:
    return " x ".join(
        f"{axis} {size}" for axis, size in components.program.sharding.mesh.shape.items()
    )


def dry_run_lines(components: Components, step: FirstStep, memory: dict[str, float]) -> list[str]:
    """Return what a dry run found out."""
    derived, shapes = derived_values(components)["train"], components.program.shapes
    average = (
        f", average {device_bytes(shapes.average) / 1e6:.2f} MB"
        if shapes.average is not None
        else ""
    )
    scratch_bytes = step.compiled.temp_bytes
    scratch = "" if scratch_bytes is None else f", scratch {scratch_bytes / GIB:.2f} GiB"
    return [
        f"parameters       {components.program.parameters:,}",
        f"compile          {step.compiled.seconds:.1f} s",
        f"first step       {step.seconds:.2f} s, loss {step.loss:.4f}",
        f"state            parameters {device_bytes(shapes.params) / 1e6:.2f} MB, optimizer "
        f"{device_bytes(shapes.opt_state) / 1e6:.2f} MB{average} on each device",
        f"memory           peak {memory.get('peak_memory_gb', float('nan')):.2f} GiB{scratch}",
        f"tokens per step  {derived['tokens_per_step']:,}",
        f"tokens planned   {derived['tokens_planned']:,}",
        "dry run: nothing was written",
    ]


def summary_lines(
    components: Components, context: RunContext, result: LoopResult, first: Progress, latest: Row
) -> list[str]:
    """Return the closing summary: results, and the commands to go on with.

    Args:
        components: of the run.
        context: of the run.
        result: of the loop.
        first: the counts at this start.
        latest: the newest row of metrics; evaluation values from the newest that had them.
    """
    progress, steps = result.progress, components.config.train.steps
    stopped = result.reason is not StopReason.FINISHED
    seconds = time.perf_counter() - context.started
    ended = "stopped" if stopped else "finished"
    lines = [f"{ended:<10} after step {progress.step} of {steps}, {seconds:.0f} s"]
    if "loss" in latest:
        lines.append(f"loss       {latest['loss']:.4f} nats per token (training)")
    if "eval_loss" in latest:
        at = latest["eval_step"]
        lines.append(
            f"evaluation {latest['eval_loss']:.4f} nats per token, "
            f"{latest['eval_bits_per_byte']:.4f} bits per byte"
            f"{f' (after step {at})' if at != progress.step else ''}"
        )
        if "ema_eval_loss" in latest:
            lines.append(
                f"average    {latest['ema_eval_loss']:.4f} nats per token, "
                f"{latest['ema_eval_bits_per_byte']:.4f} bits per byte (train.ema)"
            )
        lines += _lowest(components, context, latest)
    trained = progress.tokens_seen - first.tokens_seen
    lines.append(f"tokens     {progress.tokens_seen:,} seen, {trained:,} of them now")
    lines.append(f"run folder {context.folder.path}")
    if context.checkpointer:
        program, folder = program_name(), shlex.quote(str(context.folder.path))
        more = "".join(f" {shlex.quote(word)}" for word in plugin_options())
        more += "" if stopped or progress.step < steps else f" -o train.steps={2 * steps}"
        lines.append(f"resume     {program} train --run-dir {folder} --resume latest{more}")
        if components.program.model.can_generate:
            lines.append(f"generate   {program} generate {folder} --prompt 'def '")
    return [*lines, goodput_line(context.monitor.goodput())]
