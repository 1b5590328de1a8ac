"""Measures what reliability costs in time, with the quickstart's shapes.

    python scripts/reliability_cost.py configs/quickstart.yaml > docs/results/reliability-cost.md

On a quiet machine, 4 minutes.

First the steps of one process, in turn a few with everything on (ledger with the batch's hash,
heartbeat, watchdog, the check for finite numbers in the step, loss watch) and a few with all of it
off; then how long training waits for a save of a larger model, in the background or not.
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
from chomp.config import load_config

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


class Bench:
    """A model, its data and its state, ready for steps."""

    def __init__(self, config_path: Path, overrides: Sequence[str]):
        from chomp.trainer.components import build_components
        from chomp.trainer.program import compile_step
        from chomp.types import Progress

        self.setup = build_components(load_config(config_path, overrides), None)
        self.compiled = compile_step(self.setup.program, self.setup.config.train).step
        self.state = self.setup.program.init()
        self.progress = Progress()
        self.setup.data.train.start()

    def steps(self, count: int, step: Any, callbacks: Sequence[Any], row: Any, timer: Any) -> float:
        """Take steps as a run does; return the seconds of each."""
        import jax

        from chomp.system.signals import Signals
        from chomp.trainer.callbacks.base import Callback, PendingWork, StepInfo
        from chomp.trainer.callbacks.runner import CallbackRunner
        from chomp.trainer.control import LocalControl
        from chomp.trainer.loop import TrainLoop
        from chomp.trainer.requests import Requests

        bench = self

        class Keep(Callback):
            def __call__(self, info: StepInfo) -> None:
                bench.state = info.state

        last = self.progress.step + count
        before = [*callbacks, Keep()]
        runner = CallbackRunner(before, row, [], steps=last, pending=PendingWork())
        control = LocalControl(self.setup.data.train, Requests(Signals()))
        begin = time.perf_counter()
        loop = TrainLoop(step, control, runner, timer, last)
        self.progress = loop.run(self.state, self.progress).progress
        jax.block_until_ready(self.state)
        return (time.perf_counter() - begin) / count


class Timed:
    """Adds up the processor time that calls take of their thread."""

    def __init__(self):
        self.seconds = 0.0

    def __call__(self, call: Callable[..., Any]) -> Callable[..., None]:
        def timed(*args: Any) -> None:
            begin = time.thread_time()
            call(*args)
            self.seconds += time.thread_time() - begin

        return timed


class Row:
    """Reads the loss every so many steps, as a row of metrics does; then calls `check`."""

    def __init__(self, check: Callable[[], object] = lambda: None):
        self.check = check

    def after_step(self, info: Any) -> None:
        if info.progress.step % CHECK_EVERY == 0:
            float(info.metrics.loss)
            self.check()


def unchecked_step(bench: Bench) -> Any:
    """Compile the step without the choice between old and new values."""
    from chomp.trainer import step
    from chomp.trainer.program import compile_step

    choose, step._where = step._where, lambda condition, new, old: new
    try:
        return compile_step(bench.setup.program, bench.setup.config.train).step
    finally:
        step._where = choose


def step_cost(config: Path, overrides: Sequence[str], folder: Path) -> str:
    from chomp.data import row_stats
    from chomp.run.heartbeat import Heartbeat, Phase
    from chomp.run.ledger import Ledger
    from chomp.run.watchdog import Watchdog
    from chomp.trainer.callbacks.base import Callback, StepInfo
    from chomp.trainer.callbacks.checks import Beat, CollectLosses
    from chomp.trainer.callbacks.ledger import RecordBatch
    from chomp.trainer.loss_monitor import LossMonitor, LossPolicy
    from chomp.trainer.step_timer import StepTimer

    bench = Bench(config, overrides)
    off = unchecked_step(bench)
    timed = Timed()

    class TimedHeartbeat(Heartbeat):
        def enter(self, phase: Phase, step: int | None = None) -> None:
            timed(super().enter)(phase, step)

    class TimedCallback(Callback):
        def __init__(self, callback: Callback):
            super().__init__()
            self.callback = callback

        def __call__(self, info: StepInfo) -> None:
            timed(self.callback)(info)

    heartbeat = TimedHeartbeat(folder / "heartbeat")
    ledger = Ledger(folder / "ledger.jsonl", bench.setup.data.fingerprint, 0, print)
    policy = LossPolicy("stop", "warn", threshold=10.0, window=100, limit=10)
    losses = LossMonitor(policy, (), 0, lambda incident: None, run="RUN")
    work = [Beat(heartbeat), RecordBatch(ledger, 1), CollectLosses(losses)]
    callbacks = [TimedCallback(one) for one in work]
    row, telling = Row(timed(losses.check)), StepTimer(heartbeat)
    hashes_of = row_stats.row_hashes

    def with_all() -> float:
        watchdog = Watchdog(
            heartbeat, seconds=300, log_file=folder / "log", tell=print, note=lambda stall: None
        )
        watchdog.start()
        seconds = bench.steps(STEPS, bench.compiled, callbacks, row, telling)
        watchdog.close()
        return seconds

    def without() -> float:
        row_stats.row_hashes = lambda batch: [0] * (batch.labels.shape[0] * batch.labels.shape[1])
        seconds = bench.steps(STEPS, off, [], Row(), StepTimer())
        row_stats.row_hashes = hashes_of
        return seconds

    with_all(), without()
    timed.seconds = 0.0
    on_seconds, off_seconds = [], []
    for pair in range(PAIRS):
        for half in ("on", "off") if pair % 2 else ("off", "on"):
            (on_seconds if half == "on" else off_seconds).append(
                with_all() if half == "on" else without()
            )
    bench.setup.data.close()
    ratios = [on / off for on, off in zip(on_seconds, off_seconds, strict=True)]
    quarters = statistics.quantiles(ratios, n=4)
    own = timed.seconds / (PAIRS * STEPS)
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
    import jax

    from chomp.checkpoint.checkpointer import Checkpointer
    from chomp.trainer.step_timer import StepTimer

    larger = [f"model.{key}={value}" for key, value in LARGER.items()]
    bench = Bench(config, [*overrides, *larger])
    data_state = bench.setup.data.get_state()

    def steps() -> float:
        return STEPS_BESIDE * bench.steps(STEPS_BESIDE, bench.compiled, [], Row(), StepTimer())

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
    bench.setup.data.close()
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
    start_environment()
    with tempfile.TemporaryDirectory() as folder:
        print_head("What reliability costs", "what-it-costs")
        print(step_cost(options.config, options.override, Path(folder)))
        print(f"\n{save_cost(options.config, options.override, Path(folder))}")


if __name__ == "__main__":
    main()
