"""AdamW, or Muon with AdamW for what is not a projection."""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import optax
from optax.contrib import MuonDimensionNumbers, scale_by_muon

from chomp.config import AdamConfig, MuonConfig, OptimConfig
from chomp.optim.groups import Group
from chomp.optim.newton_schulz import Coefficients, orthogonalize
from chomp.optim.row_norms import normalize_rows
from chomp.optim.schedule import Rates, Scalar
from chomp.optim.stacks import Stacking
from chomp.types import ParameterKind

Transformation = optax.GradientTransformation

STANDARD = Coefficients(3.4445, -4.7750, 2.0315)
"""Of each Newton-Schulz iteration (Jordan et al., 2024)."""
POLAR_EXPRESS = (
    Coefficients(8.28721201814563, -23.595886519098837, 17.300387312530933),
    Coefficients(4.107059111542203, -2.9478499167379106, 0.5448431082926601),
    Coefficients(3.9486908534822946, -2.908902115962949, 0.5518191394370137),
    Coefficients(3.3184196573706015, -2.488488024314874, 0.51004894012372),
    Coefficients(2.300652019954817, -1.6689039845747493, 0.4188073119525673),
    Coefficients(1.891301407787398, -1.2679958271945868, 0.37680408948524835),
    Coefficients(1.8750014808534479, -1.2500016453999487, 0.3750001645474248),
    Coefficients(1.875, -1.25, 0.375),
)
"""Of the iterations in turn, the last of all further ones (Amsel et al., arXiv:2505.16932)."""
SAFETY = 1.01
"""Divides the singular values in all but the last iteration, so that rounding can't make one grow
(the same paper, section 4.4)."""


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


def iterations_of(config: MuonConfig) -> tuple[Coefficients, ...]:
    """Return the coefficients of each Newton-Schulz iteration."""
    count = config.ns_steps
    if config.coefficients == "standard":
        return (STANDARD,) * count
    chosen = [POLAR_EXPRESS[min(i, len(POLAR_EXPRESS) - 1)] for i in range(count)]
    safe = [Coefficients(a / SAFETY, b / SAFETY**3, c / SAFETY**5) for a, b, c in chosen[:-1]]
    return (*safe, chosen[-1])


def orthogonalized_momentum(config: MuonConfig, stacking: Stacking | None) -> Transformation:
    """Return momentum and its orthogonalization, of stacks of matrices or of each alone.

    Args:
        config: of both.
        stacking: on accelerators, where few large products are fastest; None: on a CPU.
    """
    iterations = iterations_of(config)
    # One set of coefficients makes a loop of the iterations.
    coefficients = STANDARD if config.coefficients == "standard" else iterations

    def scale(steps: int, beta: float, nesterov: bool, numbers: Any) -> Transformation:
        return scale_by_muon(
            coefficients if steps else STANDARD,
            ns_steps=steps,
            beta=beta,
            nesterov=nesterov,
            weight_dimension_numbers=numbers,
        )

    # Without iterations there is only the momentum, of norm 1; without momentum the iterations.
    momentum = scale(0, config.momentum, config.nesterov, _matrices_output_first)
    iterate = scale(config.ns_steps, 0.0, False, _stacks_output_first)

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        updates, state = momentum.update(updates, state, params)
        if stacking is None:
            return jax.tree.map(lambda x: orthogonalize(x, iterations), updates), state
        stacked = stacking.stack(updates, config.ns_steps)
        orthogonal: Any = iterate.update(stacked.stacks, iterate.init(stacked.stacks))[0]
        return stacked.restore(orthogonal), state

    # One transformation, as the other: a checkpoint fits both.
    return Transformation(momentum.init, update)


def _adam(config: AdamConfig, step_tokens: int) -> Transformation:
    b2 = config.b2
    if config.b2_half_life is not None:
        b2 = 0.5 ** (step_tokens / config.b2_half_life)
    return optax.scale_by_adam(config.b1, b2, config.eps, nesterov=config.nesterov)


def _decay(weight_decay: Scalar, *, cautious: bool) -> Transformation:
    """Add decoupled weight decay to updates that are still to be subtracted."""
    if not cautious:
        return optax.add_decayed_weights(weight_decay)

    def decayed(update: Any, param: Any) -> Any:
        return update + weight_decay * jnp.where(update * param > 0, param, 0.0)

    return optax.stateless_with_tree_map(decayed)


def _is_masked(update: Any) -> bool:
    return isinstance(update, optax.MaskedNode)


@dataclass(frozen=True)
class Optimizer:
    """Clipping by global norm, then the update of each parameter's group.

    Muon is of Jordan et al., 2024. Weight decay is decoupled (Loshchilov and Hutter,
    arXiv:1711.05101) and reaches matrices only.

    Attributes:
        config: the section `optim`, of which only what `Rates` doesn't hold is a part of a program.
        groups: a tree like the parameters with a `Group` for each.
        kinds: such a tree with a `ParameterKind` for each.
        step_tokens: positions of a step's batch.
        stacking: stacks matrices to update those of one shape together (`LocalStacking`, or
            `ShardedStacking` of `chomp.distributed` where several devices hold them in pieces);
            None: each matrix alone.
    """

    config: OptimConfig
    groups: Any
    kinds: Any
    step_tokens: int = 1
    stacking: Stacking | None = None

    def init(self, params: Any) -> Any:
        """Return the state before the first update. It doesn't depend on rates."""
        return self._transformation(Rates.of(self.config, steps=1)).init(params)

    def update(self, grads: Any, state: Any, params: Any, rates: Rates) -> tuple[Any, Any]:
        """Return the updates to add to the parameters, and the state after them."""
        return self._transformation(rates).update(grads, state, params)

    def _transformation(self, rates: Rates) -> Transformation:
        config, muon = self.config, self.config.muon
        adam = _adam(config.adam, self.step_tokens)
        decay = _decay(rates.weight_decay, cautious=config.cautious_weight_decay)
        shape_scale = (
            optax.identity() if muon.consistent_rms is None else _scale_to_rms(muon.consistent_rms)
        )
        rows = [normalize_rows(muon.b2)] if muon.normalize_neurons else []
        transforms = {
            Group.MUON: optax.chain(
                orthogonalized_momentum(muon, self.stacking),
                *rows,
                shape_scale,
                _decay(rates.muon_weight_decay, cautious=config.cautious_weight_decay),
                self._rate(rates, rates.scales.muon),
            ),
            Group.ADAMW: optax.chain(adam, decay, self._rate(rates)),
            Group.ADAM: optax.chain(adam, self._rate(rates)),
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

    def _rate(self, rates: Rates, scale: Scalar | None = None) -> Transformation:
        """Multiply by the learning rate of each parameter, negative.

        Args:
            rates: of the run.
            scale: of all of them; None: that of each one's kind.
        """
        by_kind = {
            ParameterKind.PROJECTION: 1.0,
            ParameterKind.EMBEDDING: rates.scales.embedding,
            ParameterKind.HEAD: rates.scales.head,
            ParameterKind.OTHER: rates.scales.vectors,
        }

        def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
            rate = -rates.schedule.at(state.count)

            def scaled(update: Any, kind: ParameterKind) -> Any:
                if _is_masked(update):  # of another group
                    return update
                # The scale goes to the rate, not to the update: one multiplication fewer.
                return update * (rate * (by_kind[kind] if scale is None else scale))

            updates = jax.tree.map(scaled, updates, self.kinds, is_leaf=_is_masked)
            count = optax.safe_increment(state.count)
            return updates, optax.ScaleByScheduleState(count)

        def init(params: Any) -> Any:
            return optax.ScaleByScheduleState(jnp.zeros([], jnp.int32))

        return Transformation(init, update)
