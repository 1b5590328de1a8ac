"""Floating point operations of a model's matrix products, counted from its sizes."""

from chomp.config import ModelConfig

PASSES = 3
"""Forward once, backward twice: each product has a gradient for either factor."""


def product_dtype(config: ModelConfig) -> str:
    """Return the number format that a model's matrix products are computed in."""
    return "float32" if config.backend == "dummy" else config.compute_dtype


def model_flops_per_token(config: ModelConfig) -> int:
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
        config: the `model` section, with the vocabulary already fitted to the tokenizer.
    """
    if config.backend == "dummy":
        return PASSES * 2 * config.d_model * config.vocab_size
    dim, z, value = config.model_dim, config.z_dim, config.value_dim
    outputs = config.vocab_size if config.output_size == -1 else config.output_size
    # wz, wv, wr, wh1, wh2
    projections = dim * z + dim * value + dim * value + dim * dim + value * dim
    # Each position's query with the keys of its chunk, then its weights with their values.
    attention = config.chunk_size * z + config.chunk_size * value
    feed_forward = (3 if config.swiglu else 2) * dim * config.ffn_hidden_dim
    layer = projections + attention + feed_forward
    return PASSES * 2 * (config.num_layers * layer + dim * outputs)
