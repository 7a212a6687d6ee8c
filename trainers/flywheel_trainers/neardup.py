"""Near-duplicate pruning: MinHash over word n-grams, banded, so that only likely twins are compared."""

import hashlib
from collections import defaultdict
from collections.abc import Sequence

from . import style

_BANDS, _ROWS = 16, 4  # candidates at a similarity of about (1/16)^(1/4) = 0.5; they are then compared exactly


def shingles(text: str, n: int = 3) -> frozenset[str]:
    words = style.words(text)
    return frozenset(" ".join(words[i : i + n]) for i in range(max(1, len(words) - n + 1)))


def distinct(texts: Sequence[str], threshold: float) -> list[int]:
    """Indices of texts to keep: of every two with a Jaccard similarity of `threshold` or more, the earlier stays."""
    kept: list[int] = []
    kept_shingles: dict[int, frozenset[str]] = {}
    buckets: dict[tuple[int, bytes], list[int]] = defaultdict(list)
    for i, text in enumerate(texts):
        found = shingles(text)
        keys = _band_keys(found)
        near = {j for key in keys for j in buckets[key]}
        if any(_similarity(found, kept_shingles[j]) >= threshold for j in near):
            continue
        kept.append(i)
        kept_shingles[i] = found
        for key in keys:
            buckets[key].append(i)
    return kept


def _band_keys(found: frozenset[str]) -> list[tuple[int, bytes]]:
    import numpy as np

    hashes = np.array([int.from_bytes(hashlib.blake2b(s.encode(), digest_size=8).digest()) for s in found], dtype=np.uint64)
    odd = np.arange(1, 2 * _BANDS * _ROWS, 2, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    mixed = hashes[:, None] * odd[None, :]  # multiplication by odd numbers permutes 64-bit values; overflow is wanted
    mixed ^= mixed >> np.uint64(29)
    mixed *= np.uint64(0xBF58476D1CE4E5B9)
    signature = (mixed >> np.uint64(16)).min(axis=0).reshape(_BANDS, _ROWS)
    return [(band, row.tobytes()) for band, row in enumerate(signature)]


def _similarity(a: frozenset[str], b: frozenset[str]) -> float:
    return len(a & b) / len(a | b)
