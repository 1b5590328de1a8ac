"""The rules between the sizes of a Megalodon, as megalodon-jax has them."""

from collections.abc import Callable, Iterator

from chomp.config.sections import Sections
from chomp.config.validators.base import Check, Problem, Rule, rule


def megalodon_rule(*reads: str) -> Callable[[Check], Rule]:
    """Make a rule that other models don't have to obey."""

    def make(check: Check) -> Rule:
        def check_megalodon(config: Sections) -> Iterator[Problem]:
            return check(config) if config.model.backend == "megalodon" else iter(())

        return rule("model.backend", *reads)(check)._replace(check=check_megalodon)

    return make


@megalodon_rule("model.model_dim", "model.num_heads", "model.norm_num_groups")
def model_dim_divides(config: Sections) -> Iterator[Problem]:
    """`model.model_dim` is a multiple of `model.num_heads` and of `model.norm_num_groups`."""
    yield from _multiple(config, "model_dim", "num_heads")
    yield from _multiple(config, "model_dim", "norm_num_groups")


@megalodon_rule("model.model_dim", "model.norm_num_groups")
def norm_groups_have_several_values(config: Sections) -> Iterator[Problem]:
    """`model.norm_num_groups` is less than `model.model_dim`: a group has two values or more."""
    groups, dim = config.model.norm_num_groups, config.model.model_dim
    if groups == dim:
        yield Problem(
            "model.norm_num_groups",
            f"must be less than model.model_dim, which is {dim} (got {groups}): a group of one "
            "value has no variance",
        )


@megalodon_rule("model.z_dim", "model.num_heads")
def heads_have_even_width(config: Sections) -> Iterator[Problem]:
    """`model.z_dim` is a multiple of `model.num_heads`, and their quotient is even."""
    z_dim, heads = config.model.z_dim, config.model.num_heads
    yield from _multiple(config, "z_dim", "num_heads")
    if z_dim % heads == 0 and z_dim // heads % 2:
        yield Problem(
            "model.z_dim",
            "must give each head an even width, as rotary positions rotate pairs: "
            f"model.z_dim / model.num_heads is {z_dim // heads} (got {z_dim} and {heads})",
        )


@megalodon_rule("model.value_dim", "model.num_heads")
def value_dim_divides(config: Sections) -> Iterator[Problem]:
    """`model.value_dim` is a multiple of `model.num_heads`."""
    yield from _multiple(config, "value_dim", "num_heads")


def _multiple(config: Sections, name: str, divisor_name: str) -> Iterator[Problem]:
    value, divisor = getattr(config.model, name), getattr(config.model, divisor_name)
    if value % divisor:
        yield Problem(
            f"model.{name}",
            f"must be a multiple of model.{divisor_name}, which is {divisor} (got {value})",
        )


@rule("model.kernels", "model.fast_ops")
def kernels_are_fast_ops(config: Sections) -> Iterator[Problem]:
    """`model.kernels: pallas` goes with `model.fast_ops: true`."""
    if config.model.kernels == "pallas" and not config.model.fast_ops:
        yield Problem(
            "model.kernels",
            "must be auto or xla with model.fast_ops: false, which uses none of chomp's own "
            "operations (got pallas)",
        )


@megalodon_rule("model.output_size", "model.vocab_size", "model.share_emb")
def output_covers_the_vocabulary(config: Sections) -> Iterator[Problem]:
    """`model.output_size` is -1 or at least `model.vocab_size`; with `model.share_emb` it is -1 or
    equal to it.
    """
    output, vocab, shared = (
        config.model.output_size,
        config.model.vocab_size,
        config.model.share_emb,
    )
    if output == -1:
        return
    if output == 0 or output < vocab:
        yield Problem(
            "model.output_size",
            f"must be -1 or at least model.vocab_size, which is {vocab} (got {output}): every "
            "token can be a target",
        )
    elif shared and output != vocab:
        yield Problem(
            "model.output_size",
            f"must be -1 or model.vocab_size, which is {vocab}, with model.share_emb "
            f"(got {output})",
        )


@megalodon_rule("model.init_zero_head", "model.share_emb")
def a_head_to_set_to_zero(config: Sections) -> Iterator[Problem]:
    """`model.init_zero_head` is for models with an output head of their own."""
    if config.model.init_zero_head and config.model.share_emb:
        yield Problem("model.init_zero_head", "there is no head of its own with model.share_emb")
