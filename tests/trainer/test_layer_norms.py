"""Norms of each layer: what they are, and that they change nothing."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from chomp.config import Config
from chomp.trainer.layer_norms import KINDS, WatchedStep, layer_names, norm_values
from chomp.trainer.program import TrainProgram, build_program, compile_step
from chomp.types import Batch

LAYERS = {
    "embed": "model.embed",
    "layers.0.attn": "model.layers.0.attn",
    "layers.0.ffn": "model.layers.0.ffn",
    "norm": "model.norm",
    "lm_head": "lm_head",
}


def batch_for(config: Config, texts: list[str]) -> Batch:
    train = config.train
    size = train.grad_accum * train.batch_size * train.seq_len
    data = np.frombuffer("\n".join(texts).encode()[:size], np.uint8)
    ids = data.reshape(train.grad_accum, train.batch_size, train.seq_len).astype(np.int32) + 3
    return Batch(ids, ids, np.ones_like(ids), ids > 0)


def norms_of(tree: Any) -> dict[str, float]:
    """Return each layer's norm, in float64."""
    squares = dict.fromkeys(LAYERS, 0.0)
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        name = jax.tree_util.keystr(path, simple=True, separator=".")
        [layer] = [layer for layer, start in LAYERS.items() if name.startswith(f"{start}.")]
        squares[layer] += float(np.square(np.asarray(leaf, np.float64)).sum())
    return {layer: value**0.5 for layer, value in squares.items()}


def watched(program: TrainProgram, config: Config) -> WatchedStep:
    compiled = compile_step(program, config.train, watch=True)
    return WatchedStep(compiled.step, compiled.norms, every=1, done=0)


@pytest.mark.parametrize("optim", [{"name": "adamw"}, {"name": "muon"}])
def test_they_are_those_of_the_gradient_the_update_and_the_parameters(
    make_config: Callable[..., Config], texts: list[str], optim: dict[str, Any]
):
    # So high a rate that the rounding of the parameters isn't seen in their difference.
    rate = {"lr": 0.5, "warmup_steps": 0, "grad_clip_norm": 1e-3}
    config = make_config("megalodon", optim=optim | rate, logging={"watch": True})
    program, batch = build_program(config), batch_for(config, texts)
    state = program.init()
    before = jax.device_get(state.params)
    step = watched(program, config)
    after, metrics = step(state, batch)
    values = norm_values(program.shapes.params, metrics)
    assert list(values) == [f"{kind}/{layer}" for kind in KINDS for layer in LAYERS]

    def mean_loss(params: Any) -> jax.Array:
        rows = Batch(*(jnp.asarray(a).reshape(-1, a.shape[-1]) for a in batch))
        loss, targets = program.model.loss(params, rows, None)
        return loss / targets

    update = jax.tree.map(lambda a, b: np.asarray(a, np.float64) - b, after.params, before)
    for kind, tree in {
        "grad_norm": jax.jit(jax.grad(mean_loss))(before),
        "update_norm": update,
        "param_norm": before,
    }.items():
        for layer, norm in norms_of(tree).items():
            assert values[f"{kind}/{layer}"] == pytest.approx(norm, rel=1e-4), (kind, layer)
    whole = sum(values[f"grad_norm/{layer}"] ** 2 for layer in LAYERS) ** 0.5
    assert whole == pytest.approx(float(metrics.grad_norm), rel=1e-5)


def test_an_update_that_is_left_out_is_none(make_config: Callable[..., Config], texts: list[str]):
    config = make_config("dummy", logging={"watch": True})
    program = build_program(config)
    state, step = program.init(), watched(program, config)
    broken = jax.tree.map(lambda leaf: leaf * jnp.nan, state.params)
    state = type(state)(broken, state.opt_state, state.step, state.rejected, state.key)
    _, metrics = step(state, batch_for(config, texts))
    values = norm_values(program.shapes.params, metrics)
    assert np.isnan(values["grad_norm/embed"]) and values["update_norm/embed"] == 0


def test_layers_of_other_trees():
    leaf = np.zeros(1)
    tree = {
        "blocks": [{"mix": {"w": leaf, "b": leaf}, "scale": leaf}],
        "embed": leaf,
        "out": {"w": leaf},
    }
    assert layer_names(tree) == ["blocks.0.mix", "blocks.0", "embed", "out"]


def test_the_step_is_the_same_program_with_them(make_config: Callable[..., Config]):
    """Switched on or off, letter for letter."""
    programs = set()
    for watch in (False, True):
        config = make_config("dummy", optim={"name": "muon"}, logging={"watch": watch})
        compiled = compile_step(build_program(config), config.train, watch=watch)
        assert (compiled.norms is not None) is watch
        # Without the places in the source, which say who has called.
        _, _, instructions = compiled.step.program.as_text().partition("\n\n%")
        programs.add(re.sub(r", metadata=\{[^}]*\}", "", instructions))
    assert len(programs) == 1


def test_only_steps_with_a_row_have_them(make_config: Callable[..., Config], texts: list[str]):
    config = make_config("dummy")
    program, batch = build_program(config), batch_for(config, texts)
    compiled = compile_step(program, config.train, watch=True)
    step, state, there = (
        WatchedStep(compiled.step, compiled.norms, every=3, done=1),
        program.init(),
        [],
    )
    for _ in range(5):
        state, metrics = step(state, batch)
        there.append(metrics.layer_norms is not None)
    assert there == [False, True, False, False, True]


def test_a_resume_may_switch_them(chomp: Any, config_file: Any, read_rows: Any, tmp_path: Path):
    """Losses, gradients and weights are those of a run that never had them, bit for bit."""
    straight, switched = tmp_path / "straight", tmp_path / "switched"
    sections = {"optim": {"name": "muon"}, "train": {"steps": 6}, "checkpoint": {"save_every": 2}}
    config = config_file(**sections)
    assert chomp("train", config, "--run-dir", straight).code == 0
    on = ("-o", "logging.watch=true", "-o", "train.steps=4")
    assert chomp("train", config, "--run-dir", switched, *on).code == 0
    done = chomp("train", config, "--run-dir", switched, "--resume", "2", *on)
    assert done.code == 0, done.err
    done = chomp("train", config, "--run-dir", switched, "--resume", "latest")
    assert done.code == 0, done.err
    rows, expected = read_rows(switched), read_rows(straight)
    for key in ("step", "loss", "grad_norm", "batch_hash"):
        assert [row[key] for row in rows] == [row[key] for row in expected]
    assert ["param_norm/embed" in row for row in rows] == [True] * 4 + [False] * 2
    same = chomp("checkpoints", "diff", straight, switched)
    assert same.code == 0, same
