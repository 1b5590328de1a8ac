"""Cross-entropy of a linear head without ever holding all logits.

A chunk of tokens at a time: logits, loss and at once its gradient, softmax minus one-hot, taken
back through the head. Three matrix products in all; the backward pass only scales. (The same idea
as in Liger Kernel, arXiv:2410.10989, and Cut Cross-Entropy, arXiv:2411.09009.)
"""

import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

LOGITS_AT_ONCE = 1 << 22
"""What suits a CPU's caches."""
LOGITS_AT_ONCE_ACCELERATOR = 1 << 27
"""Half a GiB: each piece adds to the head's gradient in memory, so they should be few."""


def linear_cross_entropy(
    hidden: Float[Array, "tokens dim"],
    weight: Float[Array, "vocab dim"],
    labels: Int[Array, " tokens"],
    is_target: Bool[Array, " tokens"],
    precision: jax.lax.Precision | None = None,
    accelerator: bool = False,
) -> Float[Array, ""]:
    """Return the summed cross-entropy in nats of the targets, in float32.

    Args:
        hidden: the head's input, in the dtype to compute in.
        weight: the head.
        labels: token ids; any valid id where there is no target.
        is_target: which tokens count.
        precision: of the matrix products.
        accelerator: the program is for one, which wants larger pieces and fewer passes over them.
    """
    tokens, _ = hidden.shape
    chunk = _tokens_at_once(tokens, weight.shape[0], accelerator)
    return _summed(hidden, weight, labels, is_target, chunk, precision, accelerator)


def _tokens_at_once(tokens: int, vocab: int, accelerator: bool) -> int:
    """Return the tokens of a piece; on an accelerator pieces are alike and of whole tiles of 128.

    On a CPU another number would add up the loss in another order: a resumed run would differ from
    the one that was stopped.
    """
    if not accelerator:
        return min(tokens, max(256, LOGITS_AT_ONCE // vocab))
    pieces = -(-tokens * vocab // LOGITS_AT_ONCE_ACCELERATOR)
    each = -(-tokens // pieces)
    return min(tokens, each + -each % 128)


def _chunks(
    chunk: int, hidden: Array, labels: Array, is_target: Array
) -> tuple[Array, Array, Array]:
    def split(array: Array) -> Array:
        pad = -array.shape[0] % chunk
        padded = jnp.pad(array, ((0, pad),) + ((0, 0),) * (array.ndim - 1))
        return padded.reshape(-1, chunk, *array.shape[1:])

    return split(hidden), split(labels), split(is_target)


def _logits(hidden: Array, head: Array, precision: jax.lax.Precision | None) -> Array:
    return jnp.matmul(hidden, head.T, precision=precision, preferred_element_type=jnp.float32)


@functools.partial(jax.custom_vjp, nondiff_argnums=(4, 5, 6))
def _summed(
    hidden: Array,
    weight: Array,
    labels: Array,
    is_target: Array,
    chunk: int,
    precision: jax.lax.Precision | None,
    accelerator: bool = False,
) -> Array:
    head = weight.astype(hidden.dtype)

    def add(total: Array, item: tuple[Array, Array, Array]) -> tuple[Array, None]:
        rows, label, counts = item
        logits = _logits(rows, head, precision)
        chosen = jnp.take_along_axis(logits, label[:, None], axis=-1)[:, 0]
        losses = jax.nn.logsumexp(logits, axis=-1) - chosen
        return total + jnp.where(counts, losses, 0.0).sum(), None

    items = _chunks(chunk, hidden, labels, is_target)
    return jax.lax.scan(add, jnp.zeros(()), items)[0]


def _summed_forward(
    hidden: Array,
    weight: Array,
    labels: Array,
    is_target: Array,
    chunk: int,
    precision: jax.lax.Precision | None,
    accelerator: bool,
) -> tuple[Array, tuple[Array, Array]]:
    head = weight.astype(hidden.dtype)

    def add(totals: tuple[Array, Array], item: tuple[Array, Array, Array]) -> tuple:
        loss, to_weight = totals
        rows, label, counts = item
        logits = _logits(rows, head, precision)
        largest, sums, exps = _softmax_parts(logits, accelerator)
        is_label = label[:, None] == jnp.arange(weight.shape[0])
        if accelerator:
            chosen = jnp.take_along_axis(logits, label[:, None], axis=-1)[:, 0]
        else:
            chosen = jnp.where(is_label, logits, 0.0).sum(axis=-1)
        losses = jnp.log(sums[:, 0]) + largest[:, 0] - chosen
        to_logits = jnp.where(counts[:, None], exps / sums - is_label, 0.0).astype(rows.dtype)
        to_rows = jnp.matmul(to_logits, head, precision=precision)
        to_weight += jnp.matmul(
            to_logits.T, rows, precision=precision, preferred_element_type=jnp.float32
        )
        return (loss + jnp.where(counts, losses, 0.0).sum(), to_weight), to_rows

    start = (jnp.zeros(()), jnp.zeros(weight.shape))
    items = _chunks(chunk, hidden, labels, is_target)
    (loss, to_weight), to_hidden = jax.lax.scan(add, start, items)
    to_hidden = to_hidden.reshape(-1, hidden.shape[1])[: hidden.shape[0]]
    return loss, (to_hidden, to_weight.astype(weight.dtype))


def _softmax_parts(
    logits: Float[Array, "tokens vocab"], accelerator: bool
) -> tuple[Float[Array, "tokens 1"], Float[Array, "tokens 1"], Float[Array, "tokens vocab"]]:
    """Return each token's largest logit, the sum of exp(logit - largest), and its terms.

    On an accelerator largest and sum come from one pass (Milakov and Gimelshein,
    arXiv:1805.02867); a CPU would compute every exponential twice more.
    """
    if not accelerator:
        largest = logits.max(axis=-1, keepdims=True)
        exps = jnp.exp(logits - largest)
        return largest, exps.sum(axis=-1, keepdims=True), exps

    def merge(a: tuple[Array, Array], b: tuple[Array, Array]) -> tuple[Array, Array]:
        largest = jnp.maximum(a[0], b[0])
        return largest, a[1] * jnp.exp(a[0] - largest) + b[1] * jnp.exp(b[0] - largest)

    # Finite, since a difference of two infinities is not a number.
    nothing = (jnp.finfo(jnp.float32).min, jnp.float32(0.0))
    pairs = jax.lax.reduce((logits, jnp.ones_like(logits)), nothing, merge, (1,))
    largest, sums = (part[:, None] for part in pairs)
    return largest, sums, jnp.exp(logits - largest)


def _summed_backward(
    chunk: int,
    precision: jax.lax.Precision | None,
    accelerator: bool,
    saved: tuple[Array, Array],
    grad: Array,
) -> tuple[Array, Array, None, None]:
    to_hidden, to_weight = saved
    return (
        (to_hidden * grad).astype(to_hidden.dtype),
        (to_weight * grad).astype(to_weight.dtype),
        None,
        None,
    )


_summed.defvjp(_summed_forward, _summed_backward)
