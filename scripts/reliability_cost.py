"""Measures what reliability costs in time, with the quickstart's shapes.

    python scripts/reliability_cost.py configs/quickstart.yaml > docs/results/reliability-cost.md

On a quiet machine, 4 minutes.

First the steps of one process, in turn a few with everything on (ledger with the batch's hash,
heartbeat, watchdog, the check for finite numbers in the step, loss monitor) and a few with all of
it off; then how long training waits for a save of a larger model, in the background or not.
Prints tables in Markdown.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from result_page import print_head

from chomp.cli.options import start_environment
from chomp.system.console import PrintConsole

start_environment()

import jax  # noqa: E402

from chomp.checkpoint.checkpointer import Checkpointer  # noqa: E402
from chomp.config import load_config  # noqa: E402
from chomp.data import row_stats  # noqa: E402
from chomp.run.heartbeat import Heartbeat  # noqa: E402
from chomp.run.ledger import Ledger  # noqa: E402
from chomp.run.watchdog import Watchdog  # noqa: E402
from chomp.system.signals import Signals  # noqa: E402
from chomp.trainer import step as train_step  # noqa: E402
from chomp.trainer.callback import Callback, PendingWork, StepInfo  # noqa: E402
from chomp.trainer.callbacks.checks import Beat, CollectLosses  # noqa: E402
from chomp.trainer.callbacks.ledger import RecordBatch  # noqa: E402
from chomp.trainer.callbacks.runner import CallbackRunner  # noqa: E402
from chomp.trainer.components import build_components  # noqa: E402
from chomp.trainer.control import LocalControl  # noqa: E402
from chomp.trainer.loop import TrainLoop  # noqa: E402
from chomp.trainer.loss_monitor import LossMonitor, LossPolicy  # noqa: E402
from chomp.trainer.program import compile_step  # noqa: E402
from chomp.trainer.step_timer import StepTimer  # noqa: E402
from chomp.trainer.stop_and_save import StopAndSaveRequests  # noqa: E402
from chomp.types import Progress  # noqa: E402

PAIRS = 32
STEPS = 5
"""Of each half of a pair."""
CHECK_EVERY = 20
LARGER = {"model_dim": 384, "value_dim": 768, "ffn_hidden_dim": 960}
"""Of the quickstart's model: a state of about 70 MB."""
SAVES = 4
STEPS_BESIDE = 3
"""Steps timed after each save."""


def median(values: Sequence[float]) -> float:
    return statistics.median(values)


class Timed(Callback):
    """Adds up the processor time that a callback, or the check of a loss monitor, takes."""

    seconds = 0.0

    def __init__(self, call: Callable[[StepInfo], Any], every: int = 1):
        super().__init__(every)
        self.call = call

    def __call__(self, info: StepInfo) -> None:
        begin = time.thread_time()
        self.call(info)
        Timed.seconds += time.thread_time() - begin


class ReadLoss(Callback):
    """Waits for the step as a row does, with or without a loss monitor."""

    def __call__(self, info: StepInfo) -> None:
        float(info.metrics.loss)


class Keep(Callback):
    """Keeps the state of the last step."""

    state: Any = None

    def __call__(self, info: StepInfo) -> None:
        self.state = info.state


class NoLog:
    """No rows."""

    def after_step(self, info: StepInfo) -> None:
        pass


class Bench:
    """A model, its data and its state, ready for steps."""

    def __init__(self, config_path: Path, overrides: Sequence[str]):
        self.components = build_components(load_config(config_path, overrides), None)
        self.compiled = self.compile()
        self.state = self.components.program.init()
        self.progress = Progress()
        self.components.data.train.start()

    def compile(self) -> Any:
        return compile_step(self.components.program, self.components.config.train).step

    def steps(
        self, count: int, step: Any, callbacks: Sequence[Callback] = (), timer: Any = None
    ) -> float:
        """Take steps as a run does; return the seconds of each."""
        keep, last = Keep(), self.progress.step + count
        control = LocalControl(self.components.data.train, StopAndSaveRequests(Signals()))
        log: Any = NoLog()
        runner = CallbackRunner([*callbacks, keep], log, [], steps=last, pending=PendingWork())
        loop = TrainLoop(step, control, runner, timer or StepTimer(), last)
        begin = time.perf_counter()
        self.progress = loop.run(self.state, self.progress).progress
        self.state = jax.block_until_ready(keep.state)
        return (time.perf_counter() - begin) / count


def unchecked_step(bench: Bench) -> Any:
    """Compile the step without the choice between old and new values."""
    choose, train_step._where = train_step._where, lambda condition, new, old: new
    try:
        return bench.compile()
    finally:
        train_step._where = choose


def step_cost(config: Path, overrides: Sequence[str], folder: Path) -> str:
    bench = Bench(config, overrides)
    off = unchecked_step(bench)
    heartbeat = Heartbeat(folder / "heartbeat")
    ledger = Ledger(folder / "ledger.jsonl", bench.components.data.fingerprint, 0, PrintConsole())
    policy = LossPolicy("stop", "warn", threshold=10.0, window=100, limit=10)
    losses = LossMonitor(policy, (), 0, print, run="run")
    callbacks = [
        Timed(Beat(heartbeat)),
        Timed(RecordBatch(ledger, 1)),
        Timed(CollectLosses(losses)),
        ReadLoss(CHECK_EVERY),
        Timed(lambda info: losses.check(), CHECK_EVERY),
    ]
    hashes_of = row_stats.row_hashes

    def with_all() -> float:
        watchdog = Watchdog(
            heartbeat,
            seconds=300,
            log_file=folder / "log",
            console=PrintConsole(),
            note=lambda stall: None,
        )
        watchdog.start()
        seconds = bench.steps(STEPS, bench.compiled, callbacks, StepTimer(heartbeat))
        watchdog.close()
        return seconds

    def without() -> float:
        row_stats.row_hashes = lambda batch: [0] * (batch.labels.shape[0] * batch.labels.shape[1])
        seconds = bench.steps(STEPS, off, [ReadLoss(CHECK_EVERY)])
        row_stats.row_hashes = hashes_of
        return seconds

    with_all(), without()
    Timed.seconds = 0.0
    on_seconds, off_seconds = [], []
    for pair in range(PAIRS):
        for half in ("on", "off") if pair % 2 else ("off", "on"):
            (on_seconds if half == "on" else off_seconds).append(
                with_all() if half == "on" else without()
            )
    bench.components.data.close()
    ratios = [on / off for on, off in zip(on_seconds, off_seconds, strict=True)]
    quarters = statistics.quantiles(ratios, n=4)
    own = Timed.seconds / (PAIRS * STEPS)
    size = (folder / "ledger.jsonl").stat().st_size / bench.progress.step
    return "\n".join(
        [
            "| | |",
            "|---|---|",
            f"| step with all of it on, median of {PAIRS} x {STEPS} | "
            f"{1e3 * median(on_seconds):.2f} ms |",
            f"| step with all of it off | {1e3 * median(off_seconds):.2f} ms |",
            f"| on against off, median of the pairs (quartiles) | "
            f"{100 * (median(ratios) - 1):+.2f}% "
            f"({100 * (quarters[0] - 1):+.2f}% to {100 * (quarters[2] - 1):+.2f}%) |",
            f"| of that, processor time of the training thread | {1e6 * own:.0f} µs a step, "
            f"{100 * own / median(off_seconds):.3f}% |",
            f"| ledger | {size:.0f} bytes a step |",
        ]
    )


def save_cost(config: Path, overrides: Sequence[str], folder: Path) -> str:
    larger = [f"model.{key}={value}" for key, value in LARGER.items()]
    bench = Bench(config, [*overrides, *larger])
    data_state = bench.components.data.get_state()

    def steps() -> float:
        return STEPS_BESIDE * bench.steps(STEPS_BESIDE, bench.compiled)

    steps()
    lines = []
    undisturbed = [steps()]
    for name, background in (("in the background", True), ("waited for", False)):
        checkpoints = Checkpointer(folder / name, max_to_keep=2, async_save=background)
        blocked, beside = [], []
        for _ in range(SAVES):
            undisturbed.append(steps())
            begin = time.perf_counter()
            checkpoints.save(bench.state, bench.progress, data_state, {})
            blocked.append(time.perf_counter() - begin)
            beside.append(steps())
            checkpoints.wait()
        assert checkpoints.problems() == []
        checkpoints.close()
        lines.append((name, blocked, beside))
    bench.components.data.close()
    size = sum(leaf.nbytes for leaf in jax.tree.leaves(bench.state))
    plain = median(undisturbed)
    step = plain / STEPS_BESIDE
    rows = [
        f"{size / 1e6:.1f} MB of state; a step takes {1e3 * step:.0f} ms.\n",
        "| save | training waits, median | longest | share of a step | "
        f"{STEPS_BESIDE} steps after it take longer by |",
        "|---|---|---|---|---|",
    ]
    for name, blocked, beside in lines:
        rows.append(
            f"| {name} | {1e3 * median(blocked):.1f} ms | {1e3 * max(blocked):.1f} ms | "
            f"{100 * median(blocked) / step:.1f}% | {1e3 * (median(beside) - plain):.0f} ms |"
        )
    return "\n".join(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("config", type=Path)
    parser.add_argument("-o", "--override", action="append", default=[])
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        print_head("What reliability costs", "what-it-costs")
        print(step_cost(options.config, options.override, Path(folder)))
        print(f"\n{save_cost(options.config, options.override, Path(folder))}")


if __name__ == "__main__":
    main()
