"""Which stores keep a key: the R that score highest for it (rendezvous hashing).

Source: HQDE clauses 2.6, 2.8, 2.9; Thaler and Ravishankar 1998, "Using name-based mappings to increase hit rates".
Pure.

The score depends on the key and the store alone. So a store that joins takes only the keys it wins, about R/N of
them, one that leaves gives up only its own, and nobody needs a table. Keys and stores never share a name: what is
hashed is a fixed-length digest of the key, then the store.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import xxhash

from hqde_ref.errors import ConfigurationError

__all__ = ["choose_stores"]


def choose_stores(key: str, *, stores: Sequence[str], copies: int) -> tuple[str, ...]:
    """The stores of a key, best first; the order in which the stores are listed has no say.

    Raises:
        ConfigurationError: for more copies than stores.
    """
    if copies > len(stores):
        raise ConfigurationError(
            setting="copies", wanted=f"at most the {len(stores)} stores", got=copies, do="add stores or keep fewer"
        )
    code = xxhash.xxh3_128_digest(_encode(key))
    scores = {store: xxhash.xxh3_64_intdigest(code + _encode(store)) for store in stores}
    return tuple(sorted(stores, key=lambda store: (-scores[store], store))[:copies])


@lru_cache(maxsize=4096)
def _encode(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")  # clause 2.8: any string is a key, a lone surrogate too
