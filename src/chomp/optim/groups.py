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


def _group(kind: ParameterKind, ndim: int, *, muon: bool, all_2d: bool, tied_embed: bool) -> Group:
    is_projection, is_embedding = (
        kind is ParameterKind.PROJECTION,
        kind is ParameterKind.EMBEDDING,
    )
    takes_muon = (
        is_projection
        or (is_embedding and tied_embed)
        or (all_2d and ndim == 2 and not is_embedding)
    )
    if muon and takes_muon:
        return Group.MUON
    return Group.ADAMW if is_projection or is_embedding else Group.ADAM


def parameter_groups(
    params: Any, kinds: Any, *, muon: bool, all_2d: bool = False, tied_embed: bool = False
) -> Any:
    """Return a tree like `params` with each leaf's `Group`.

    Args:
        params: parameters or their shapes.
        kinds: a tree like them with each one's `ParameterKind`.
        muon: whether projections get Muon updates.
        all_2d: Muon also for every other two-dimensional parameter but the embedding.
        tied_embed: Muon also for the embedding (meant for one that is the output head as well).
    """
    return jax.tree.map(
        lambda leaf, kind: _group(kind, leaf.ndim, muon=muon, all_2d=all_2d, tied_embed=tied_embed),
        params,
        kinds,
    )


def group_table(params: Any, groups: Any) -> Iterator[GroupRow]:
    """Yield each parameter's path, shape, size and group, in tree order."""
    leaves = jax.tree_util.tree_leaves_with_path(params)
    for (path, leaf), group in zip(leaves, jax.tree.leaves(groups), strict=True):
        name = jax.tree_util.keystr(path).lstrip(".")
        yield GroupRow(name, tuple(leaf.shape), math.prod(leaf.shape), group)
