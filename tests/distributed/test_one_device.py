import re
from collections import Counter
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import jax

from chomp.trainer import make_train_step
from chomp.trainer.components import build_program
from chomp.trainer.programs import batch_shapes, compile_step


def operations(text: str) -> Counter[str]:
    return Counter(re.findall(r"= \S+ ([a-z][a-z0-9-]*)\(", text))


def test_a_mesh_of_one_device_costs_nothing(make_config: Callable[..., Any]):
    """Its program is the one without a mesh."""
    config = make_config("dummy")
    learner, train = build_program(config), config.train
    on_mesh = compile_step(SimpleNamespace(config=config, learner=learner))
    step = make_train_step(learner.model, learner.optimizer, deterministic=learner.deterministic)
    shapes = jax.tree.map(lambda s: jax.ShapeDtypeStruct(s.shape, s.dtype), learner.shapes)
    batch = batch_shapes(train.grad_accum, train.batch_size, train.seq_len)
    without = jax.jit(step, donate_argnums=0).lower(shapes, batch).compile()
    assert operations(on_mesh.step.as_text()) == operations(without.as_text())
    assert on_mesh.temp_bytes == without.memory_analysis().temp_size_in_bytes
