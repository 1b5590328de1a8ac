"""AdamW, or Muon with AdamW for what is not a projection."""

from typing import Any

import jax
import jax.numpy as jnp
import optax
from optax.contrib import MuonDimensionNumbers, scale_by_muon

from chomp.config import OptimConfig
from chomp.optim.groups import Group


def _matrices_output_first(updates: Any) -> Any:
    """Weights are [output, input], as Equinox keeps them."""
    return jax.tree.map(lambda _: MuonDimensionNumbers(1, 0), updates)


def _scale_to_rms(rms: float) -> optax.GradientTransformation:
    """Give orthogonal updates the same root mean square at every shape (arXiv:2502.16982)."""
    return optax.stateless_with_tree_map(
        lambda update, _: update * (rms * max(jnp.shape(update)) ** 0.5)
    )


def build_optimizer(
    config: OptimConfig, groups: Any, schedule: optax.Schedule
) -> optax.GradientTransformation:
    """Return clipping by global norm, then the update of each parameter's group.

    Muon (Jordan et al., 2024) has the rate `schedule * config.muon.lr_scale`. Weight decay is
    decoupled (Loshchilov and Hutter, arXiv:1711.05101) and reaches matrices only.

    Args:
        config: the `optim` section.
        groups: a tree like the parameters with a `Group` for each.
        schedule: learning rate of AdamW by update count.
    """
    adam = optax.scale_by_adam(
        config.adam.b1, config.adam.b2, config.adam.eps, nesterov=config.adam.nesterov
    )
    muon = config.muon
    shape_scale = (
        optax.identity() if muon.consistent_rms is None else _scale_to_rms(muon.consistent_rms)
    )
    rate = optax.scale_by_learning_rate(schedule)
    transforms = {
        Group.MUON: optax.chain(
            scale_by_muon(
                ns_steps=muon.ns_steps,
                beta=muon.momentum,
                nesterov=muon.nesterov,
                weight_dimension_numbers=_matrices_output_first,
            ),
            shape_scale,
            optax.add_decayed_weights(config.weight_decay * muon.weight_decay_mult),
            optax.scale_by_learning_rate(lambda count: schedule(count) * muon.lr_scale),
        ),
        Group.ADAMW: optax.chain(adam, optax.add_decayed_weights(config.weight_decay), rate),
        Group.ADAM: optax.chain(adam, rate),
    }
    # In the order of definition: a set's changes from process to process, and with it the program,
    # which the compile cache would then not know again.
    found = set(jax.tree.leaves(groups))
    present = [group for group in Group if group in found]
    clip = (
        optax.clip_by_global_norm(config.grad_clip_norm)
        if config.grad_clip_norm
        else optax.identity()
    )
    # As a function: the tree is a callable module itself, which Optax would call for the labels.
    return optax.chain(
        clip, optax.partition({name: transforms[name] for name in present}, lambda _: groups)
    )
