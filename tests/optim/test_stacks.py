import jax
import jax.numpy as jnp
import numpy as np

from chomp.config import OptimConfig
from chomp.optim import LocalStacking, Optimizer, Rates, parameter_groups


def test_muon_s_update_is_the_same_with_matrices_in_stacks(params, kinds_of):
    config = OptimConfig(name="muon")
    kinds = kinds_of(params)
    groups = parameter_groups(params, kinds, muon=True, all_2d=True, tied_embed=True)
    rates = Rates.of(config, steps=100)
    alone = Optimizer(config, groups, kinds)
    stacked = Optimizer(config, groups, kinds, stacking=LocalStacking())
    rng = np.random.default_rng(0)
    grads = jax.tree.map(lambda p: jnp.asarray(rng.normal(size=p.shape), p.dtype), params)
    state = alone.init(params)
    assert jax.tree.structure(state) == jax.tree.structure(stacked.init(params))
    one, two = (
        jax.jit(optimizer.update)(grads, state, params, rates)[0] for optimizer in (alone, stacked)
    )
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(two), strict=True):
        # Alone, it is products of rows that are iterated, which round less well.
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=5e-5 * np.abs(a).max())


def test_each_shape_is_one_stack_and_results_keep_their_places():
    tree = {"a": jnp.ones((2, 3)), "b": jnp.full((3, 2), 2.0), "c": jnp.full((2, 3), 3.0)}
    stacked = LocalStacking().stack(tree, 0)
    assert [stack.shape for stack in stacked.stacks] == [(2, 2, 3), (1, 3, 2)]
    done = stacked.restore([stack * 10 for stack in stacked.stacks])
    assert {name: float(value[0, 0]) for name, value in done.items()} == {
        "a": 10.0,
        "b": 20.0,
        "c": 30.0,
    }
