"""Which parameter gets which update, decided by what it is."""

import enum
import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax

from chomp.types import ParameterKind


class Group(enum.StrEnum):
    """The three ways to update a parameter."""

    MUON = "muon"
    ADAMW = "adamw"
    """Adam with weight decay: matrices that Muon doesn't take."""
    ADAM = "adam"
    """No weight decay: biases, norms, ComplexEMA and other parameters that are not matrices."""


class GroupRow(NamedTuple):
    """One parameter in the partition that `--dry-run` shows."""

    path: str
    shape: tuple[int, ...]
    size: int
    group: Group


def parameter_groups(
    params: Any,
    kinds: Any,
    *,
    muon: bool,
    head: bool = True,
    all_2d: bool = False,
    tied_embed: bool = False,
) -> Any:
    """Return a tree like `params` with each leaf's `Group`.

    Args:
        params: parameters or their shapes.
        kinds: a tree like them with each one's `ParameterKind`.
        muon: whether projections get Muon updates.
        head: Muon also for the output head.
        all_2d: Muon also for every other two-dimensional parameter but the embedding.
        tied_embed: Muon also for the embedding (meant for one that is the output head as well).
    """
    takes_muon = {
        ParameterKind.PROJECTION: True,
        ParameterKind.HEAD: head,
        ParameterKind.EMBEDDING: tied_embed,
        ParameterKind.OTHER: False,
    }

    def group(leaf: Any, kind: ParameterKind) -> Group:
        is_other = kind is ParameterKind.OTHER
        if muon and (takes_muon[kind] or (all_2d and is_other and leaf.ndim == 2)):
            return Group.MUON
        return Group.ADAM if is_other else Group.ADAMW

    return jax.tree.map(group, params, kinds)


def group_table(params: Any, groups: Any) -> Iterator[GroupRow]:
    """Yield each parameter's path, shape, size and group, in tree order."""
    leaves = jax.tree_util.tree_leaves_with_path(params)
    for (path, leaf), group in zip(leaves, jax.tree.leaves(groups), strict=True):
        name = jax.tree_util.keystr(path).lstrip(".")
        yield GroupRow(name, tuple(leaf.shape), math.prod(leaf.shape), group)
