"""AdamW, or Muon with AdamW for what is not a projection."""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import optax
from optax.contrib import MuonDimensionNumbers, scale_by_muon

from chomp.config import MuonConfig, OptimConfig
from chomp.optim.groups import Group
from chomp.optim.schedule import Rates
from chomp.optim.stacks import Stacking

Transformation = optax.GradientTransformation


def _matrices_output_first(updates: Any) -> Any:
    """Weights are [output, input], as Equinox keeps them."""
    return jax.tree.map(lambda _: MuonDimensionNumbers(1, 0), updates)


def _stacks_output_first(updates: Any) -> Any:
    """Stacks of weights."""
    return jax.tree.map(lambda _: MuonDimensionNumbers(2, 1), updates)


def _scale_to_rms(rms: float) -> Transformation:
    """Give orthogonal updates the same root mean square at every shape (arXiv:2502.16982)."""
    return optax.stateless_with_tree_map(
        lambda update, _: update * (rms * max(jnp.shape(update)) ** 0.5)
    )


def _muon(config: MuonConfig, stacking: Stacking | None) -> Transformation:
    """Return momentum and its orthogonalization, where wanted of stacks of matrices."""

    def scale(steps: int, beta: float, nesterov: bool, numbers: Any) -> Transformation:
        return scale_by_muon(
            ns_steps=steps, beta=beta, nesterov=nesterov, weight_dimension_numbers=numbers
        )

    if stacking is None:
        return scale(config.ns_steps, config.momentum, config.nesterov, _matrices_output_first)
    # Without iterations there is only the momentum, of norm 1; without momentum the iterations.
    momentum = scale(0, config.momentum, config.nesterov, _matrices_output_first)
    iterate = scale(config.ns_steps, 0.0, False, _stacks_output_first)

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        updates, state = momentum.update(updates, state, params)
        stacked = stacking.stack(updates, config.ns_steps)
        orthogonal: Any = iterate.update(stacked.stacks, iterate.init(stacked.stacks))[0]
        return stacked.restore(orthogonal), state

    # One transformation, as the other: a checkpoint fits both.
    return Transformation(momentum.init, update)


@dataclass(frozen=True)
class Optimizer:
    """Clipping by global norm, then the update of each parameter's group.

    Muon is of Jordan et al., 2024. Weight decay is decoupled (Loshchilov and Hutter,
    arXiv:1711.05101) and reaches matrices only.

    Attributes:
        config: the section `optim`, of which only what `Rates` doesn't hold is a part of a program.
        groups: a tree like the parameters with a `Group` for each.
        stacking: stacks matrices to update those of one shape together (`LocalStacking`, or
            `ShardedStacking` of `chomp.distributed` where several devices hold them in pieces);
            None: each matrix alone.
    """

    config: OptimConfig
    groups: Any
    stacking: Stacking | None = None

    def init(self, params: Any) -> Any:
        """Return the state before the first update. It doesn't depend on rates."""
        return self._transformation(Rates.of(self.config, steps=1)).init(params)

    def update(self, grads: Any, state: Any, params: Any, rates: Rates) -> tuple[Any, Any]:
        """Return the updates to add to the parameters, and the state after them."""
        return self._transformation(rates).update(grads, state, params)

    def _transformation(self, rates: Rates) -> Transformation:
        config, at = self.config, rates.schedule.at
        adam = optax.scale_by_adam(
            config.adam.b1, config.adam.b2, config.adam.eps, nesterov=config.adam.nesterov
        )
        muon = config.muon
        shape_scale = (
            optax.identity() if muon.consistent_rms is None else _scale_to_rms(muon.consistent_rms)
        )
        rate = optax.scale_by_learning_rate(at)
        transforms = {
            Group.MUON: optax.chain(
                _muon(muon, self.stacking),
                shape_scale,
                optax.add_decayed_weights(rates.muon_weight_decay),
                optax.scale_by_learning_rate(lambda count: at(count) * rates.muon_scale),
            ),
            Group.ADAMW: optax.chain(adam, optax.add_decayed_weights(rates.weight_decay), rate),
            Group.ADAM: optax.chain(adam, rate),
        }
        # In the order of definition: a set's changes from process to process, and with it the
        # program, which the compile cache would then not know again.
        found = set(jax.tree.leaves(self.groups))
        present = [group for group in Group if group in found]
        # As a function: the tree is a callable module itself, which Optax would call for labels.
        return optax.chain(
            optax.clip_by_global_norm(rates.max_norm),
            optax.partition({name: transforms[name] for name in present}, lambda _: self.groups),
        )
