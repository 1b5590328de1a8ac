"""`python -m chomp.bench.first_step FILE train ...`: a command that ends at its first step.

It is the command itself, in a process of its own; only the functions that a start consists of are
wrapped, to note when they begin and end. FILE gets these times as JSON.
"""

import json
import os
import runpy
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from chomp.system import jax_runtime

SPANS: dict[str, list[float]] = {}
"""By name: begin and end, seconds since 1970."""
FUNCTIONS = (
    ("chomp.trainer.components", "open_tokenizer", "tokenizer"),
    ("chomp.trainer.shared_programs", "build_program", "model"),
    ("chomp.trainer.components", "open_data", "data"),
    ("chomp.trainer.trainer", "compile_step", "compile"),
)


def noted(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """Return the function, its first call noted under `name`."""

    def call(*args: Any, **keys: Any) -> Any:
        begin = time.time()
        try:
            return function(*args, **keys)
        finally:
            SPANS.setdefault(name, [begin, time.time()])

    return call


def run(file: Path, arguments: list[str]) -> None:
    """Run `chomp ARGUMENTS` to the end of its first step."""
    prepare_environment = jax_runtime.prepare_environment

    def prepare_and_wrap() -> list[str]:
        warnings = prepare_environment()
        noted("imports", lambda: __import__("chomp.trainer.launch"))()
        for module, function, name in FUNCTIONS:
            owner = sys.modules[module]
            setattr(owner, function, noted(name, getattr(owner, function)))
        trainer: Any = sys.modules["chomp.trainer.trainer"]
        compile_step, run = trainer.compile_step, trainer.TrainLoop.run
        trainer.compile_step = lambda *args, **keys: _ending(compile_step(*args, **keys), file)
        trainer.TrainLoop.run = lambda *args: _begun(run, *args)
        return warnings

    jax_runtime.prepare_environment = prepare_and_wrap
    sys.argv = ["chomp", *arguments]
    runpy.run_module("chomp", run_name="__main__")


def _begun(run: Callable[..., Any], *args: Any) -> Any:
    SPANS["first_batch"] = [time.time()] * 2
    return run(*args)


def _ending(compiled: Any, file: Path) -> Any:
    import jax

    def step(*args: Any) -> None:
        SPANS["first_batch"][1] = begin = time.time()
        jax.block_until_ready(compiled.step(*args))
        SPANS["first_step"] = [begin, time.time()]
        file.write_text(json.dumps(SPANS), encoding="utf-8")
        os._exit(0)

    return replace(compiled, step=step)


if __name__ == "__main__":
    run(Path(sys.argv[1]), sys.argv[2:])
