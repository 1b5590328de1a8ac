"""A sweep from its first run to its last: checks, calibration, rungs of halving, failures."""

import itertools
import math
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from chomp.config import Config
from chomp.errors import ChompError, ConfigError
from chomp.sweep.calibration import FIRST_STEPS, calibration_task, measured_costs, timed_steps
from chomp.sweep.display import Display
from chomp.sweep.figures import read_columns
from chomp.sweep.plan import Plan, Point, check_rungs, folder_name, rungs, timing_key, with_steps
from chomp.sweep.pool import Outcome, Pool, Task
from chomp.sweep.progress import Progress
from chomp.sweep.record import ENDED, Calibration, State, SweepRecord
from chomp.sweep.results import Scores

CALIBRATION = "calibration"


class Conductor:
    """Has the runs of a sweep trained, and keeps its record.

    Args:
        plan: what to train.
        record: what is done; written after each run.
        folder: of the sweep.
        pool: trains.
        display: is told.
    """

    def __init__(self, plan: Plan, record: SweepRecord, folder: Path, pool: Pool, display: Display):
        self._plan, self._record, self._folder = plan, record, folder
        self._pool, self._display = pool, display
        self._programs = {name: timing_key(config) for name, config in plan.configs.items()}
        self._failed = set[str]()

    def run(self) -> None:
        """Train what isn't trained, to its end or to a stop.

        Raises:
            ConfigError: a run can't start; none has.
        """
        if all(run.state in ENDED for run in self._record.runs):
            return
        self._check()
        if not self._is_stopping():
            self._record.write(self._folder)
        if self._plan.budget and self._plan.budget.is_time:
            self._calibrate(self._plan.budget.amount)
        if self._is_stopping():
            return
        configs = {arm: self._config(arm) for arm in self._plan.arms}
        progress = Progress(self._record, self._folder, configs)
        if self._plan.halving:
            check_rungs(configs)
            self._halve(configs, progress)
        else:
            self._train(self._plan.points(), {}, progress)

    def _is_stopping(self) -> bool:
        return self._pool.signals.stop_requested()

    def _config(self, arm: str) -> Config:
        """Return an arm's configuration with the steps that it is trained for."""
        config, steps = self._plan.configs[arm], self._record.steps(arm)
        return config if steps is None else with_steps(config, steps)

    def _check(self) -> None:
        """Look for the files, tokenizers, packages and devices that the runs need."""
        arms = {program: arm for arm, program in self._programs.items()}
        found = self._pool.check([self._plan.values(arm, 0) for arm in arms.values()])
        problems = dict(zip(arms, found, strict=True))
        shared = [line for line in found[0] if all(line in lines for lines in found)]
        own = [
            f"{arm}: {line}"
            for arm, program in self._programs.items()
            for line in problems[program]
            if line not in shared
        ]
        if shared or own:
            raise ConfigError([*shared, *own])

    def _calibrate(self, seconds: float) -> None:
        """Find out how many steps of each arm fit into its budget."""
        found, problems = self._record.calibrations, list[str]()
        steps = {self._programs[arm]: each.steps for arm, each in found.items()}
        for arm, program in self._programs.items():
            if arm in found:
                continue
            if program in steps:
                found[arm] = Calibration(steps[program], False, 0.0)
            elif measured := self._measure(seconds, arm):
                found[arm] = measured
                steps[program] = measured.steps
            else:
                return
            try:
                self._config(arm)
            except ConfigError as error:
                problems += [f"{arm}: {problem}" for problem in error.problems]
        if problems:
            raise ConfigError(problems)
        self._record.write(self._folder)

    def _measure(self, seconds: float, arm: str) -> Calibration | None:
        """Measure a program by a short run; None where a stop comes before the end of it."""
        folder = self._folder / CALIBRATION / folder_name(arm)
        shutil.rmtree(folder, ignore_errors=True)  # of one that a stop has cut off
        program, config = self._programs[arm], self._plan.configs[arm]
        self._display.line(f"calibrating {arm}")
        first = self._finished(calibration_task(self._plan, arm, folder, FIRST_STEPS, program))
        if first is None:
            return None
        more = calibration_task(self._plan, arm, folder, timed_steps(folder, seconds), program)
        if self._finished(more) is None:
            return None
        costs = measured_costs(folder, config, first)
        steps = costs.steps_in(seconds)
        self._display.line(
            f"calibrated {arm}: {costs.step * 1e3:.1f} ms a step with its share of evaluations, "
            f"samples and checkpoints; {costs.once:.1f} s for start, compilation and end"
            f"{'' if first.compiled else ' (its step came from the compile cache)'}: "
            f"{max(0, steps):,} steps in {seconds:g} s"
        )
        if steps < 1:
            raise ConfigError(
                [f"--budget {seconds:g}s: {arm} takes {costs.once + costs.step:.0f} s for one step"]
            )
        return Calibration(steps, first.compiled, first.compile_seconds)

    def _finished(self, task: Task) -> Outcome | None:
        """Do a task; None where a stop keeps it from its end."""
        for done in self._pool.do([task]):
            if done and done[1].state is State.FINISHED:
                return done[1]
            if done and done[1].state is not State.WAITING:
                raise ChompError(f"{task.name}: {done[1].reason}")
        return None

    def _halve(self, configs: Mapping[str, Config], progress: Progress) -> None:
        """Train all arms to a quarter of their steps, the better half to a half, and so on."""
        arms = list(self._plan.arms)
        stages = {arm: rungs(config) for arm, config in configs.items()}
        for stage in range(max(map(len, stages.values()))):
            ends = {arm: steps[stage] for arm, steps in stages.items()}
            stops = {arm: end for arm, end in ends.items() if end < configs[arm].train.steps}
            progress.later = self._later(len(arms), stages[self._plan.baseline][stage:])
            self._train([p for p in self._plan.points() if p.arm in arms], stops, progress)
            if self._is_stopping():
                return
            if stops:
                arms = self._best(arms, ends)

    def _later(self, arms: int, ends: Sequence[int]) -> int:
        """Return the steps of all runs after the first of these ends; half of the arms drop out."""
        count, others = 0, arms - 1
        for begin, end in itertools.pairwise(ends):
            others = math.ceil(others / 2)
            count += (others + 1) * self._plan.seeds * (end - begin)
        return count

    def _best(self, arms: Sequence[str], steps: Mapping[str, int]) -> list[str]:
        """Leave the worse half of the arms besides the baseline behind; return the others."""
        scores = Scores(self._record, self._folder, self._programs)
        others = [arm for arm in arms if arm != self._plan.baseline]
        others.sort(key=lambda arm: scores.mean_at(arm, steps[arm]))
        kept = {*others[: math.ceil(len(others) / 2)], self._plan.baseline}
        for run in self._record.runs:
            if run.arm in arms and run.arm not in kept and run.state is State.WAITING:
                run.state = State.DROPPED
                run.reason = f"not in the better half after step {steps[run.arm]}"
        self._record.write(self._folder)
        left = [arm for arm in arms if arm in kept]
        self._display.line(f"halving    {len(left)} of {len(arms)} arms go on")
        return left

    def _train(self, points: Sequence[Point], stops: Mapping[str, int], progress: Progress) -> None:
        """Train runs to their ends, or to the steps at which their arms stop."""
        todo = [point for point in points if self._is_open(point, stops.get(point.arm))]
        order = list(dict.fromkeys(self._programs.values()))
        todo.sort(key=lambda point: order.index(self._programs[point.arm]))
        progress.begin(todo, stops)
        tasks = [self._task(point, stops.get(point.arm)) for point in todo]
        by_name = {point.run: point for point in todo}
        for done in self._pool.do(tasks):
            progress.running = {task.name for task in self._pool.running}
            if done:
                task, outcome = done
                self._note(by_name[task.name], outcome, task.stop_after)
                progress.ended(task.name)
                self._display.ended(progress, by_name[task.name])
            self._display.tick(progress)

    def _is_open(self, point: Point, stop: int | None) -> bool:
        run = self._record.of(point)
        is_there = stop is not None and run.step >= stop
        return run.state not in ENDED and point.run not in self._failed and not is_there

    def _task(self, point: Point, stop: int | None) -> Task:
        values = self._plan.values(point.arm, point.seed, self._record.steps(point.arm))
        folder, program = self._folder / point.run, self._programs[point.arm]
        return Task(point.run, folder, values, self._plan.text, program, stop)

    def _note(self, point: Point, outcome: Outcome, stop: int | None) -> None:
        """Keep what came of a run."""
        run = self._record.of(point)
        run.state, run.reason = outcome.state, outcome.reason
        run.compiled = run.compiled or outcome.compiled
        run.compile_seconds = (run.compile_seconds or 0.0) + outcome.compile_seconds
        run.start_seconds = run.start_seconds or outcome.start_seconds
        if outcome.state is State.FAILED:
            self._failed.add(point.run)
        steps = read_columns(self._folder / point.run)["step"]
        reached = int(steps[-1]) if len(steps) else 0
        if outcome.state is State.WAITING and stop is not None and reached >= stop:
            run.step = stop
        if outcome.state is State.FINISHED and reached < self._config(point.arm).train.steps:
            run.reason = f"the data ended after step {reached}"
        self._record.write(self._folder)
