"""Programs that XLA reads from text, and ones that it compiles for a GPU that isn't there."""

import textwrap
from collections.abc import Callable
from typing import Any

import jax
import pytest
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from jaxlib import _hlo

from chomp.hlo.accelerators import accelerator
from chomp.hlo.compiled import Options, Program, compile_traced
from chomp.hlo.module import Module, parse
from chomp.hlo.target import devices_of


@pytest.fixture
def read() -> Callable[[str], Module]:
    """Read a program as XLA's own parser gives it back."""

    def made(text: str) -> Module:
        text = "HloModule m, is_scheduled=true\n\n" + textwrap.dedent(text)
        return parse(_hlo.hlo_module_from_text(text).to_string())

    return made


@pytest.fixture(scope="session")
def compiled() -> Callable[..., Program]:
    """Compile a function of arrays for a GPU: `compiled(f, x_shape, ..., name="h100")`."""

    def made(
        function: Callable[..., Any],
        *shapes: jax.ShapeDtypeStruct,
        name: str = "h100",
        options: Options | None = None,
    ) -> Program:
        mesh = Mesh(devices_of(accelerator(name), 1), ("x",))
        where = NamedSharding(mesh, P())
        placed = [jax.ShapeDtypeStruct(s.shape, s.dtype, sharding=where) for s in shapes]
        return compile_traced(jax.jit(function).trace(*placed), options)

    return made
