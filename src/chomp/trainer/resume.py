"""Resuming a run: the checkpoint, what must not have changed, and where the data goes on."""

import math
from typing import Any

import jax
import numpy as np

from chomp.checkpoint.checkpointer import SavedRun
from chomp.checkpoint.compatibility import (
    CONTENT,
    ENVIRONMENT,
    ConfigChange,
    changes,
    check_arithmetic,
    check_compatible,
    matters,
    package_versions,
    without_evaluation,
)
from chomp.checkpoint.directory import CheckpointChoice, damage_lines
from chomp.config import Config, OptimConfig
from chomp.data import at_commits, place_after_changes
from chomp.errors import ResumeError
from chomp.optim import schedules
from chomp.system.jax_runtime import keep_cpu_threads, numeric_environment
from chomp.trainer.components import Components
from chomp.trainer.context import RunContext
from chomp.trainer.parameter_average import check_average


def choose_checkpoint(resume: str | None, steps: int, context: RunContext) -> CheckpointChoice:
    """Return the step to go on from, and say what is wrong with newer ones.

    Args:
        resume: `latest`, a step, or None for a new run.
        steps: the last step of the run.
        context: of the run.

    Raises:
        ResumeError: there is nothing to go on from, or nothing left to do.
    """
    if resume is None:
        return CheckpointChoice(None, [])
    if context.checkpointer is None:
        raise ResumeError(
            "checkpoint.enabled is false: there is nothing to resume from; set it to true, "
            "or start a new run in another folder"
        )
    choice, recorder = context.checkpointer.choose(resume), context.monitor.recorder
    if choice.step is None:
        if (parent := recorder.record.parent) and parent.kind == "branch":
            raise ResumeError(
                f"{context.checkpointer.folder} holds no checkpoint, not even the one that this "
                f"branch begins from; put it back, or make the branch anew: chomp branch "
                f"{parent.folder}:{parent.step} NEW"
            )
        reached = f", though step {recorder.reached} was reached" if recorder.reached else ""
        context.console.message(f"nothing is saved{reached}: starting from the first step")
        return choice
    for line in damage_lines(choice):
        context.console.warn(line)
    if choice.rejected:
        reached = max(recorder.reached, choice.rejected[0][0])
        context.console.warn(f"{reached - choice.step} steps are trained again")
    if steps < choice.step:
        raise ResumeError(
            f"train.steps: {steps} is less than the {choice.step} steps that are done; give more, "
            "or resume an earlier step"
        )
    return choice


def stay_at_commits(config: Config, saved: SavedRun, context: RunContext) -> Config:
    """Return the configuration with the commits of datasets on the hub that a saved run has read.

    Not where the user allows other content: then what is newest is read.
    """
    if {"data", CONTENT} & set(context.allow_change):
        return config
    data = at_commits(config.data, saved.meta["identity"]["data"]["content"])
    return config.model_copy(update={"data": data})


def check_settings(config: Config, saved: SavedRun, context: RunContext) -> None:
    """Check that the configuration and the environment fit a saved run's.

    Raises:
        ResumeError: something changed that isn't allowed to.
    """
    now = config.model_dump(mode="json") | {ENVIRONMENT: numeric_environment()}
    # Checkpoints of earlier versions don't know the environment.
    before = {ENVIRONMENT: saved.meta.get(ENVIRONMENT, now[ENVIRONMENT])} | saved.meta["config"]
    for change in check_compatible(before, now, context.allow_change):
        context.console.message(f"changed since the checkpoint: {change}")
    # On a CPU; earlier versions didn't keep it.
    if line := keep_cpu_threads(saved.meta.get("cpu_threads")):
        context.console.message(line)
    for change in changes(saved.meta["versions"], package_versions()):
        context.console.warn(f"{change}; results may differ in their last bits from here on")


def check_platform(saved: SavedRun, context: RunContext) -> None:
    """Check that steps round as those of a saved run did, now that JAX has started.

    Raises:
        ResumeError: they don't.
    """
    check_arithmetic(saved.meta, jax.default_backend(), context.allow_change)


def check_contents(components: Components, saved: SavedRun, context: RunContext) -> None:
    """Check that data and tokenizer are a saved run's, and that the parameters fit.

    Raises:
        ResumeError: they don't.
    """
    then, now = saved.meta["identity"], components.identity
    if components.config.train.eval_every == 0:
        then, now = without_evaluation(then), without_evaluation(now)
    check_compatible(then, now, context.allow_change)
    if context.checkpointer:
        step = saved.progress.step
        context.checkpointer.check_shapes(step, components.program.shapes.params)
        there = context.checkpointer.has_average(step)
        began = saved.meta["config"]["train"]["ema_from"] if there else None
        check_average(components.config.train, began, step)


def rate_line(components: Components, saved: SavedRun) -> str:
    """Return what the learning rate does from a checkpoint on; empty where nothing has changed."""
    config, done = components.config, saved.progress.step
    changed = [change for change in _changed(components, saved) if matters(change)]
    before, steps = saved.meta["config"], config.train.steps
    if done == steps or (before["train"]["steps"] == steps and not changed):
        return ""
    # The first versions had no other schedule.
    earlier = OptimConfig.model_validate({"schedule": "cosine"} | before["optim"])
    old = schedules(earlier, before["train"]["steps"])["lr"]
    new = schedules(config.optim, steps)["lr"]
    rates = np.asarray(new(np.arange(done, steps)))
    was, first, top = float(old(done)), float(rates[0]), int(rates.argmax())
    same = math.isclose(was, first, rel_tol=1e-6)
    parts = [f"{first:.2e} at step {done + 1}{'' if same else f' rather than {was:.2e}'}"]
    if rates[top] > first:
        parts.append(f"{rates[top]:.2e} at step {done + top + 1}")
    if done + 1 < steps:
        parts.append(f"{rates[-1]:.2e} at the last step, {steps}")
    return f"rate       {', '.join(parts)}"


def _changed(components: Components, saved: SavedRun) -> list[ConfigChange]:
    return [
        *changes(saved.meta["config"], components.given.model_dump(mode="json")),
        *changes(saved.meta["identity"], components.identity),
    ]


def data_position(
    components: Components, saved: SavedRun, context: RunContext
) -> tuple[dict[str, Any], str]:
    """Return where the data of a saved run goes on now, and what to say about that."""
    return place_after_changes(
        saved.data_state,
        components.start,
        [change.key for change in _changed(components, saved) if matters(change)],
        context.allow_change,
        bins=components.config.data.packing_mode == "bin",
    )
