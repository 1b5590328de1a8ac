"""Attention over spans in float64, and what to try it on."""

import numpy as np

REACH = 150


def reference(q, k, v, start, above):
    """Return outputs and, for the gradient `above`, those of q, k and v: query by query."""
    q, k, v, above = (np.asarray(a, np.float64) for a in (q, k, v, above))
    out, to_q, to_k, to_v = np.zeros(v.shape), *(np.zeros(a.shape) for a in (q, k, v))
    for b, h, t in np.ndindex(q.shape[:3]):
        span = slice(start[b, t], t + 1)
        if start[b, t] > t:
            continue
        scores = k[b, h, span] @ q[b, h, t]
        weights = np.exp(scores - scores.max())
        weights /= weights.sum()
        out[b, h, t] = weights @ v[b, h, span]
        to_weights = v[b, h, span] @ above[b, h, t]
        to_scores = weights * (to_weights - weights @ to_weights)
        to_q[b, h, t] = to_scores @ k[b, h, span]
        to_k[b, h, span] += np.outer(to_scores, q[b, h, t])
        to_v[b, h, span] += np.outer(weights, above[b, h, t])
    return out, to_q, to_k, to_v


def case(time: int, documents: int, padding: int, seed: int = 0, dim: int = 4, values: int = 6):
    rng = np.random.default_rng(seed)
    sizes = (dim, dim, values, values)
    q, k, v, above = (rng.normal(size=(2, 2, time, d)).astype(np.float32) for d in sizes)
    q *= (4 / dim) ** 0.5
    cuts = [np.sort(rng.integers(0, time, documents - 1)) for _ in range(2)]
    runs = np.stack([np.searchsorted(c, np.arange(time), side="right") for c in cuts])
    first = np.stack([np.searchsorted(r, r, side="left") for r in runs])
    start = first + (np.arange(time) - first) // REACH * REACH
    start[:, time - padding :] = np.arange(time - padding, time) + 1
    return q, k, v, start.astype(np.int32), above, runs
