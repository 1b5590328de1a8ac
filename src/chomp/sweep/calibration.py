"""How many steps fit into a budget of seconds: a short run of each program tells."""

from pathlib import Path

import numpy as np

from chomp.config import Config
from chomp.run.heartbeat import Phase
from chomp.sweep.budget import Costs
from chomp.sweep.figures import read_columns, read_starts
from chomp.sweep.plan import Plan
from chomp.sweep.pool import Outcome, Task

FIRST_STEPS, ROW_STEPS = 12, 4
LEAST_SECONDS, LEAST_SHARE = 3.0, 0.05
"""Of the steps that are timed: so many, but no larger a share of a small budget."""
NEVER = 2**30


def calibration_task(plan: Plan, arm: str, folder: Path, steps: int, program: str) -> Task:
    """Return the task of a short run with an evaluation, a sample and a checkpoint at its end."""
    values = plan.values(arm, 0, steps)
    train, optim = values["train"], values["optim"]
    train["log_every"] = min(train["log_every"], ROW_STEPS)
    train["eval_every"] = NEVER
    train["generate_every"] = train["generate_every"] and NEVER
    values["checkpoint"] |= {"save_every": NEVER, "save_every_minutes": None}
    # Rates don't change the program; a warm-up may be longer than the run.
    optim |= {"warmup_steps": 0, "decay_steps": None}
    return Task(f"calibration of {arm}", folder, values, plan.text, program)


def timed_steps(folder: Path, budget: float) -> int:
    """Return the last step of the second part of a calibration, whose steps are timed.

    Args:
        folder: of the calibration, after its first part.
        budget: seconds of a run.
    """
    step = float(read_columns(folder)["step_time_s"][-1])
    seconds = min(LEAST_SECONDS, LEAST_SHARE * budget)
    return FIRST_STEPS + max(FIRST_STEPS, int(np.ceil(seconds / step)))


def measured_costs(folder: Path, config: Config, first: Outcome) -> Costs:
    """Return what runs like a calibration cost.

    Args:
        folder: of the calibration, after its second part, which has compiled nothing.
        config: of the runs, with their evaluations, samples and checkpoints on the way.
        first: outcome of the first part, with the seconds of start and compile.
    """
    columns, (cold, *_, warm) = read_columns(folder), read_starts(folder)
    # Without the first row, which has waited for data while nothing was compiled.
    behind = columns["step"] > FIRST_STEPS + ROW_STEPS
    done = np.diff(columns["step"], prepend=0.0)[behind]
    step = float((columns["step_time_s"][behind] * done).sum() / done.sum())
    train, once = config.train, first.start_seconds + first.compile_seconds
    once += cold.seconds.get(Phase.WAITING, 0.0)
    for phase in Phase.STARTING, Phase.RESTORING, Phase.CLOSING:
        once += warm.seconds.get(phase, 0.0)
    for phase, every in (
        (Phase.EVALUATING, train.eval_every),
        (Phase.SAMPLING, train.generate_every),
        (Phase.SAVING, config.checkpoint.save_every),
    ):
        seconds = warm.seconds.get(phase, 0.0)
        once += seconds
        step += seconds / every if every else 0.0
    return Costs(once, step)
