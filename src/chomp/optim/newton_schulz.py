"""Newton-Schulz iterations on a CPU, of the products of a matrix's rows instead of the matrix.

Each iteration multiplies X from the left by a polynomial in X X^T, so after all of them it is Q X
with Q a polynomial in the first X X^T. Only products of the smaller dimension are iterated, and no
matrix is transposed on the way, which a CPU would do in passes of their own.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

RESTART = 5
"""Iterations on one X X^T. Rounding can make its smallest eigenvalues negative, and each iteration
lets these grow about tenfold."""
EPS = 1e-8


class Coefficients(NamedTuple):
    """Those of one iteration: X becomes a X + b X X^T X + c (X X^T)^2 X."""

    a: float
    b: float
    c: float


def orthogonalize(
    x: Float[Array, "rows columns"], iterations: Sequence[Coefficients]
) -> Float[Array, "rows columns"]:
    """Bring the singular values of `x` near one, starting from a Frobenius norm of one.

    The same as `optax.contrib`'s of Muon but for the order of the products (Jordan et al., 2024).

    Args:
        x: the matrix, in float32.
        iterations: coefficients of each.
    """
    rows, columns = x.shape
    x = x / (jnp.linalg.norm(x) + EPS)
    for start in range(0, len(iterations), RESTART):
        some = iterations[start : start + RESTART]
        if rows <= columns:
            x = _product(_polynomial(_product(x, x.T), some), x)
        else:
            x = _product(x, _polynomial(_product(x.T, x), some))
    return x


def _product(a: Array, b: Array) -> Array:
    return jnp.matmul(a, b, precision=jax.lax.Precision.HIGHEST)


def _polynomial(
    gram: Float[Array, "n n"], iterations: Sequence[Coefficients]
) -> Float[Array, "n n"]:
    """Return Q of the iterations; `gram` is the product of the matrix with its transpose."""
    identity = jnp.eye(len(gram))
    total = identity
    for number, (a, b, c) in enumerate(iterations):
        factor = a * identity + b * gram + c * _product(gram, gram)
        total = factor if number == 0 else _product(total, factor)
        if number < len(iterations) - 1:
            gram = _product(_product(gram, factor), factor)
    return total
