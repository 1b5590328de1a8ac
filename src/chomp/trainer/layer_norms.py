"""Norms of gradients, updates and parameters, layer by layer."""

from collections import defaultdict
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from chomp.types import Batch, StepMetrics, TrainState

KINDS = ("grad_norm", "update_norm", "param_norm")
"""What the rows of `layer_norms` are, as keys of the metrics have it before the layer's name."""


def layer_names(params: Any) -> list[str]:
    """Return the names of the layers of a tree of parameters, or of their shapes, in its order.

    A layer is a part of a block, such as `layers.3.attn`, or what is in no block, such as `embed`.
    """
    paths = [path for path, _ in jax.tree_util.tree_leaves_with_path(params)]
    return list(dict.fromkeys(map(_layer, paths)))


def layer_norms(grads: Any, updates: Any, params: Any) -> Float[Array, "kind layer"]:
    """Return the norms of each layer, in the order of `KINDS` and of `layer_names`."""
    return jnp.stack([jnp.stack(_norms(tree)) for tree in (grads, updates, params)])


class WatchedStep:
    """The training step, before which a program of its own computes the norms at some of the steps.

    It takes a step's time again, and as the step is the same program with and without it, nothing
    is rounded otherwise.

    Args:
        step: the compiled training step.
        norms: returns the norms of the step that a state and a batch lead to.
        every: steps between norms.
        done: finished steps.
    """

    def __init__(self, step: Any, norms: Any, *, every: int, done: int):
        self._step, self._norms, self._every, self._done = step, norms, every, done

    def __call__(self, state: TrainState, batch: Batch) -> tuple[TrainState, StepMetrics]:
        """Take a step, which the state is donated to."""
        self._done += 1
        norms = None if self._done % self._every else self._norms(state, batch)
        state, metrics = self._step(state, batch)
        return state, metrics._replace(layer_norms=norms)


def norm_values(params: Any, metrics: StepMetrics) -> dict[str, float]:
    """Return a step's norms by their keys in a row of metrics; none where they weren't computed.

    Args:
        params: the parameters, or their shapes.
        metrics: of the step; read from the device.
    """
    if metrics.layer_norms is None:
        return {}
    names, norms = layer_names(params), jax.device_get(metrics.layer_norms).tolist()
    return {
        f"{kind}/{name}": value
        for kind, values in zip(KINDS, norms, strict=True)
        for name, value in zip(names, values, strict=True)
    }


def _norms(tree: Any) -> list[Array]:
    layers: dict[str, list[Array]] = defaultdict(list)
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        layers[_layer(path)].append(leaf.astype(jnp.float32))
    return [optax.tree.norm(leaves) for leaves in layers.values()]


def _layer(path: tuple[Any, ...]) -> str:
    """Return a parameter's layer: `layers.3.attn` for `model.layers.3.attn.wz.weight`."""
    *layers, name = jax.tree_util.keystr(path, simple=True, separator=".").split(".")
    if layers[:1] == ["model"]:  # the whole of megalodon-jax's network but the output head
        layers = layers[1:]
    for place, number in enumerate(layers):
        if number.isdecimal():
            return ".".join(layers[: place + 2])
    return ".".join(layers) or name
