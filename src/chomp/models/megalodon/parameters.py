"""The parameters of megalodon-jax by their names."""

from chomp.types import ParameterKind

# Attention and feed-forward network.
PROJECTIONS = frozenset({"wz", "wv", "wr", "wh1", "wh2", "fc1", "fc2", "fc3"})
HEAD = "lm_head"
EMBEDDING = "embed"
MOVING_AVERAGE = "cema"


def layer_and_name(path: str) -> tuple[str, str]:
    """Return the last two names of a path: the layer that owns the array, and its name there."""
    *layers, name = path.split(".")
    return (layers[-1] if layers else ""), name


def kind_of(path: str, shape: tuple[int, ...]) -> ParameterKind:
    """Return what a parameter is."""
    layer, name = layer_and_name(path)
    if layer in PROJECTIONS and name == "weight" and len(shape) == 2:
        return ParameterKind.PROJECTION
    if layer == HEAD and name == "weight":
        return ParameterKind.HEAD
    if layer == EMBEDDING and name == "weight":
        return ParameterKind.EMBEDDING
    return ParameterKind.OTHER


def first_axis_is_cut(path: str) -> bool:
    """Tell whether the devices of an `fsdp` group cut the first dimension of a parameter.

    That of a weight is its output: pieces of it follow one another in memory, so that putting them
    together is no more than a copy.
    """
    return layer_and_name(path)[0] in {*PROJECTIONS, HEAD, EMBEDDING, MOVING_AVERAGE}
