import re
from collections import Counter
from collections.abc import Callable
from typing import Any

import jax

from chomp.trainer.program import batch_shapes, build_program, compile_step
from chomp.trainer.step import make_train_step


def operations(text: str) -> Counter[str]:
    return Counter(re.findall(r"= \S+ ([a-z][a-z0-9-]*)\(", text))


def test_a_mesh_of_one_device_costs_nothing(make_config: Callable[..., Any]):
    """Its program is the one without a mesh."""
    config = make_config("dummy")
    train_program, train = build_program(config), config.train
    on_mesh = compile_step(train_program, train)
    step = make_train_step(
        train_program.model, train_program.optimizer, deterministic=train_program.deterministic
    )
    shapes = jax.tree.map(lambda s: jax.ShapeDtypeStruct(s.shape, s.dtype), train_program.shapes)
    batch = batch_shapes(train.grad_accum, train.batch_size, train.seq_len)
    lowered = jax.jit(step, donate_argnums=0).lower(shapes, batch, train_program.rates)
    without = lowered.compile(train_program.compiled.options)
    assert operations(on_mesh.step.program.as_text()) == operations(without.as_text())
    assert on_mesh.temp_bytes == without.memory_analysis().temp_size_in_bytes
