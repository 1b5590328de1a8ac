"""The order of a corpus with random access: a permutation of it for each epoch, never stored.

Grain's index shuffle does the same for one index at a time and fewer than 2**32 documents. It draws
from at least 2**16 numbers until one is in range, which takes 44 µs a document in a corpus of 734.
"""

import numpy as np

ROUNDS = 6
"""Four make a Feistel network of good round functions a strong permutation (Luby and Rackoff 1988);
more help where the halves have few bits."""
_ODD = (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB)  # those of splitmix64


def documents_at(positions: np.ndarray, count: int, seed: int | None) -> np.ndarray:
    """Return which of `count` documents comes at each position of an endless stream of epochs.

    Args:
        positions: uint64, counted from the stream's beginning.
        count: documents of an epoch.
        seed: each epoch has another order, drawn from it; None: the documents' own order.
    """
    epochs, places = np.divmod(positions, np.uint64(count))
    if seed is None:
        return places
    half = np.uint64(max(1, -(-(count - 1).bit_length() // 2)))
    keys = _mix(_mix(np.full_like(epochs, seed)) + epochs)
    found = _permute(places, keys, half)
    # A number outside is permuted further until it is back inside: still one to one.
    while len(outside := np.flatnonzero(found >= count)):
        found[outside] = _permute(found[outside], keys[outside], half)
    return found


def _permute(values: np.ndarray, keys: np.ndarray, half: np.uint64) -> np.ndarray:
    """Permute the numbers of 2 * half bits: a Feistel network, one permutation for each key."""
    low_bits = (np.uint64(1) << half) - np.uint64(1)
    left, right = values >> half, values & low_bits
    for number in range(ROUNDS):
        mixed = _mix(keys + right * np.uint64(_ODD[0]) + np.uint64(number))
        left, right = right, left ^ (mixed & low_bits)
    return left << half | right


def _mix(values: np.ndarray) -> np.ndarray:
    """Mix the bits of uint64: the finalizer of splitmix64 (Steele, Lea and Flood 2014)."""
    values = values + np.uint64(_ODD[0])
    values = (values ^ values >> np.uint64(30)) * np.uint64(_ODD[1])
    values = (values ^ values >> np.uint64(27)) * np.uint64(_ODD[2])
    return values ^ values >> np.uint64(31)
