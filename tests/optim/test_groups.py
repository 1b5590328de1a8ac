import re
from collections.abc import Callable
from typing import Any

import jax
import pytest

from chomp.models.dummy import Dummy
from chomp.optim import Group, group_table, parameter_groups

PROJECTIONS = {
    *(f"model.layers[0].attn.{name}.weight" for name in ("wz", "wv", "wr", "wh1", "wh2")),
    *(f"model.layers[0].ffn.{name}.weight" for name in ("fc1", "fc2", "fc3")),
    "lm_head.weight",
}


@pytest.fixture
def groups_of(named, kinds_of) -> Callable[..., dict[str, Group]]:
    return lambda params, **keys: named(parameter_groups(params, kinds_of(params), **keys))


def paths(groups: dict[str, Group], group: Group) -> set[str]:
    return {path for path, found in groups.items() if found is group}


def test_muon_takes_the_projections_and_nothing_else(groups_of, params: Any):
    groups = groups_of(params, muon=True)
    assert paths(groups, Group.MUON) == PROJECTIONS
    assert paths(groups, Group.ADAMW) == {"model.embed.weight"}
    rest = paths(groups, Group.ADAM)
    assert any("cema" in path for path in rest)
    assert any("norm" in path for path in rest)
    assert any(path.endswith("bias") for path in rest)


def test_without_muon_projections_and_embedding_have_weight_decay(groups_of, params: Any):
    groups = groups_of(params, muon=False)
    assert paths(groups, Group.MUON) == set()
    assert paths(groups, Group.ADAMW) == PROJECTIONS | {"model.embed.weight"}


def test_all_2d_adds_every_other_matrix_but_the_embedding(groups_of, named, params: Any):
    taken = paths(groups_of(params, muon=True, all_2d=True), Group.MUON)
    matrices = {path for path, leaf in named(params).items() if leaf.ndim == 2}
    assert taken == matrices - {"model.embed.weight"}
    assert taken > PROJECTIONS


def test_tied_embed_adds_the_embedding(groups_of, params_of):
    tied = params_of(share_emb=True)
    assert paths(groups_of(tied, muon=True), Group.MUON) == PROJECTIONS - {"lm_head.weight"}
    widened = paths(groups_of(tied, muon=True, tied_embed=True), Group.MUON)
    assert widened == PROJECTIONS - {"lm_head.weight"} | {"model.embed.weight"}


def test_shape_alone_decides_nothing(named):
    """The bigram model's embedding has the very shape of its head."""
    model = Dummy(vocab_size=32, dim=16)
    params = jax.eval_shape(model.init, jax.random.PRNGKey(0))
    assert params.embed.weight.shape == params.lm_head.weight.shape
    groups = named(parameter_groups(params, model.parameter_kinds(params), muon=True))
    assert groups == {"embed.weight": Group.ADAMW, "lm_head.weight": Group.MUON}


def test_the_table_has_each_parameter_once(params: Any, kinds_of, named):
    table = list(group_table(params, parameter_groups(params, kinds_of(params), muon=True)))
    shapes = {row.path: row.shape for row in table}
    assert shapes == {path: leaf.shape for path, leaf in named(params).items()}
    assert sum(row.size for row in table) == sum(leaf.size for leaf in jax.tree.leaves(params))
    assert all(re.search(r"weight$", row.path) for row in table if row.group is not Group.ADAM)
