"""Floating point operations of a Megalodon's matrix products, counted from its sizes."""

from megalodon_jax import MegalodonConfig

from chomp.models.base import PASSES


def model_flops_per_token(config: MegalodonConfig) -> int:
    """Return the operations of forward and backward pass per position of a row.

    A product that sums over n terms is 2n operations an element. Counted is what the model's
    definition multiplies: projections, attention of each chunk with itself (all of it, as it is
    computed, not the causal half), feed-forward network, logits. Not counted is what is not a
    matrix product (moving average, norms, softmax, rotary positions, update), and what an
    implementation computes besides: recomputation under `use_checkpoint`, ComplexEMA as products
    in chunks, the wider key windows of isolated documents. So the number belongs to the model, and
    two implementations are compared by it fairly (model FLOPs as in PaLM, arXiv:2204.02311,
    appendix B).

    Args:
        config: the library's, with the vocabulary already fitted to the tokenizer.
    """
    dim, z, value = config.model_dim, config.z_dim, config.value_dim
    outputs = config.vocab_size if config.output_size == -1 else config.output_size
    # wz, wv, wr, wh1, wh2
    projections = dim * z + dim * value + dim * value + dim * dim + value * dim
    # Each position's query with the keys of its chunk, then its weights with their values.
    attention = config.chunk_size * z + config.chunk_size * value
    feed_forward = (3 if config.swiglu else 2) * dim * config.ffn_hidden_dim
    layer = projections + attention + feed_forward
    return PASSES * 2 * (config.num_layers * layer + dim * outputs)
