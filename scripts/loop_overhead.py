"""What the training loop costs on top of its steps.

    python scripts/loop_overhead.py scripts/bench_configs/loop.yaml

Trains with the loop of `chomp train` (data, ledger, rows, saves, as the configuration has them),
then takes the same steps on the same batches and from the same state with nothing around them, in
turn, in one process and with one compiled program. Prints the time of a step each way, and the
ratio of the medians.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

from chomp.system.jax_runtime import prepare_environment

prepare_environment()

import jax  # noqa: E402

from chomp.config import Config, TrainConfig, load_config  # noqa: E402
from chomp.run.run_folder import RunFolder  # noqa: E402
from chomp.system.garbage_collection import deferred_collection  # noqa: E402
from chomp.trainer import launch, trainer  # noqa: E402
from chomp.trainer.loop import TrainLoop  # noqa: E402
from chomp.trainer.program import CompiledStep, TrainProgram, compile_step  # noqa: E402
from chomp.trainer.request import Request  # noqa: E402
from chomp.types import Batch  # noqa: E402


class Both:
    """The loop and the bare steps of one configuration."""

    def __init__(self, config: Config, original: str):
        self.config, self.original = config, original
        self.batches: list[Batch] = []
        self.loop_seconds: list[float] = []
        self.bare_seconds: list[float] = []
        self._program: TrainProgram | None = None
        self._compiled: CompiledStep | None = None

    def loop(self, folder: Path) -> None:
        """Train a run; its steps' time is that of the whole loop, without start and end."""
        self.batches = []
        request = Request(
            self.config, self.original, RunFolder(folder), None, (), time.perf_counter()
        )
        with (
            mock.patch.object(trainer, "compile_step", self._compile),
            mock.patch.object(TrainLoop, "run", self._timed(TrainLoop.run)),
            deferred_collection(),
        ):
            code = launch.train(request)
        assert code == 0

    def bare(self) -> None:
        """Take the same steps."""
        assert self._program and self._compiled
        step, state = self._compiled.step, jax.block_until_ready(self._program.init())
        start = time.perf_counter()
        for batch in self.batches:
            state, _ = step(state, batch)
        jax.block_until_ready(state)
        self.bare_seconds.append((time.perf_counter() - start) / len(self.batches))

    def _compile(self, program: TrainProgram, train: TrainConfig, **keys: bool) -> CompiledStep:
        self._program = program
        if self._compiled is None:
            self._compiled = compile_step(program, train, **keys)
        compiled = self._compiled

        def kept(state: Any, batch: Batch) -> Any:
            self.batches.append(batch)
            return compiled.step(state, batch)

        return replace(compiled, step=kept)

    def _timed(self, run: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*args: Any, **keys: Any) -> Any:
            start = time.perf_counter()
            result = run(*args, **keys)
            self.loop_seconds.append((time.perf_counter() - start) / result.progress.step)
            return result

        return timed


def main() -> None:
    parser = argparse.ArgumentParser(description="Time of the loop over the time of its steps.")
    parser.add_argument("config", type=Path)
    parser.add_argument("-o", dest="overrides", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=100, help="in each round")
    options = parser.parse_args()
    overrides = [f"train.steps={options.steps}", *options.overrides]
    config = load_config(options.config, overrides)
    both = Both(config, options.config.read_text(encoding="utf-8"))
    with tempfile.TemporaryDirectory(prefix="chomp-loop-") as folder:
        for number in range(options.rounds + 1):  # the first is for warming up
            both.loop(Path(folder) / str(number))
            both.bare()
            if number:
                seconds = both.loop_seconds[-1], both.bare_seconds[-1]
                print(f"round {number}: loop {seconds[0]:.5f} s, bare {seconds[1]:.5f} s a step")
    loop, bare = both.loop_seconds[1:], both.bare_seconds[1:]
    ratio = statistics.median(loop) / statistics.median(bare)
    found = {
        "loop_step_seconds": statistics.median(loop),
        "bare_step_seconds": statistics.median(bare),
        "ratio": ratio,
        "ratios": [a / b for a, b in zip(loop, bare, strict=True)],
        "ratio_of_least": min(loop) / min(bare),
    }
    json.dump(found, sys.stdout, indent=2)
    print()


if __name__ == "__main__":
    main()
