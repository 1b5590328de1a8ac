"""The program that an accelerator would run, compiled without one."""

import re
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax

from chomp.hlo.executions import Executions, derived, launched
from chomp.hlo.kernels import Kernels, kernel_flops
from chomp.hlo.module import Module, parse
from chomp.hlo.thunks import read_thunks

Options = Mapping[str, bool | int | str]
"""Of the compiler, without leading dashes."""

_FRAMES = "jax_traceback_in_locations_limit"
"""Source frames that a program keeps of each instruction: by default the ten innermost."""
_ENTRY = re.compile(r"\.entry\b")
# red.global.add.f32, atom.global.v4.f32.add and the like.
_FLOATS = r"(?:f16|f16x2|bf16|bf16x2|f32|f64)"
_ATOMIC_ADD = re.compile(rf"(?<![\w.%$])(?:atom|red)\.(?=[\w.:]*\.add\b)[\w.:]*\.{_FLOATS}\b")
# A sum that is exchanged for the old one, if that is still there.
_COMPARE_AND_SWAP = re.compile(r"(?<![\w.%$])atom\.[\w.:]*\.cas\b")
_ADD = re.compile(rf"(?<![\w.%$])(?:add|fma)\.[\w.]*{_FLOATS}\b")


@dataclass(frozen=True)
class Program:
    """A compiled program, and what the compiler wrote about it.

    Attributes:
        module: its instructions.
        executions: what a step runs.
        memory: XLA's plan for one device.
        kernels: what its Pallas kernels declare.
        float_atomics: kernels that add to floats in memory in whatever order they come, whose sums
            therefore aren't the same each time; None: nobody knows.
        seconds: time to lower and compile.
    """

    module: Module
    executions: Executions
    memory: Any
    kernels: Kernels
    float_atomics: int | None
    seconds: float


def compile_traced(traced: jax.stages.Traced, options: Options | None = None) -> Program:
    """Compile a program for the devices that its arguments are placed on.

    Args:
        traced: the traced function, with arguments on devices of `chomp.hlo.target`.
        options: the compiler's; a run's own, for its program.
    """
    start = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="chomp-hlo-") as folder, _setting(_FRAMES, -1):
        dump = Path(folder)
        compiled = _compile(traced.lower(), {**(options or {}), "xla_dump_to": folder})
        seconds = time.perf_counter() - start
        text = compiled.as_text()
        assert text is not None, "compilers for accelerators give one"
        module, thunks = parse(text), read_thunks(dump)
        executions = derived(module) if thunks is None else launched(module, thunks)
        atomics = _float_atomics(dump)
    return Program(
        module,
        executions,
        compiled.memory_analysis(),
        kernel_flops(traced.jaxpr),
        atomics,
        seconds,
    )


def compile_memory(traced: jax.stages.Traced, options: Options | None = None) -> Any:
    """Return XLA's plan of a program's memory on one device, and nothing else."""
    return _compile(traced.lower(), dict(options or {})).memory_analysis()


def _compile(lowered: jax.stages.Lowered, options: dict[str, Any]) -> jax.stages.Compiled:
    with _no_compile_cache():
        return lowered.compile(compiler_options=options)


@contextmanager
def _no_compile_cache() -> Iterator[None]:
    """Have the compiler run: a program out of JAX's cache comes without its dump."""
    from jax.experimental.compilation_cache import compilation_cache

    with _setting("jax_enable_compilation_cache", False):
        compilation_cache.reset_cache()  # JAX looks at the setting once
        try:
            yield
        finally:
            compilation_cache.reset_cache()


@contextmanager
def _setting(name: str, value: bool | int) -> Iterator[None]:
    before = getattr(jax.config, name)
    jax.config.update(name, value)
    try:
        yield
    finally:
        jax.config.update(name, before)


def _float_atomics(dump: Path) -> int | None:
    """Count kernels with them in the assembler's input."""
    files = list(dump.glob("*.ptx"))
    if not files:
        return None
    kernels = (part for file in files for part in _ENTRY.split(file.read_text("utf-8"))[1:])
    return sum(map(_adds_by_atomics, kernels))


def _adds_by_atomics(kernel: str) -> bool:
    if _ATOMIC_ADD.search(kernel):
        return True
    return bool(_COMPARE_AND_SWAP.search(kernel) and _ADD.search(kernel))
