"""One seed, split by name into independent random streams.

A draw added in one place moves nothing elsewhere: each name has a generator of its own, seeded by SHA-256 of the seed
and the name. No ``hash()``, so PYTHONHASHSEED has no say.
"""

from __future__ import annotations

import hashlib
import random

__all__ = ["seed_of", "stream"]


def seed_of(seed: int, *names: str | int) -> int:
    """A 63-bit seed for this name."""
    text = "\x1f".join([str(seed), *map(str, names)])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def stream(seed: int, *names: str | int) -> random.Random:
    """A generator for this name."""
    return random.Random(seed_of(seed, *names))
