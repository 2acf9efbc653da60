"""Which stores keep a key: the R that score highest for it (rendezvous hashing), each in another failure domain.

Source: HQDE clauses 2.6, 2.8, 2.9; Thaler and Ravishankar 1998, "Using name-based mappings to increase hit rates".
Pure.

The score depends on the key and the store alone. So a store that joins takes only the keys it wins, about R/N of
them, one that leaves gives up only its own, and nobody needs a table. Keys and stores never share a name: what is
hashed is a fixed-length digest of the key, then the store.

Stores of one domain, say one machine, fail together. The best store of every domain comes before the second best of
any, and so on; within such a turn the scores decide. So copies share a domain only where there are more of them than
domains, and a store that comes or goes still moves one copy of a key at most: it moves its domain's stores by one turn,
and so costs one other store its place. What a domain is called has no say, only who shares it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from functools import lru_cache

import xxhash

from hqde_ref.errors import ConfigurationError

__all__ = ["choose_stores"]


def choose_stores(
    key: str, *, stores: Sequence[str], copies: int, domains: Sequence[str] | None = None
) -> tuple[str, ...]:
    """The stores of a key, best first; the order in which the stores are listed has no say.

    Args:
        domains: the failure domain of each store; None: each is one of its own.

    Raises:
        ConfigurationError: for more copies than stores.
    """
    if copies > len(stores):
        raise ConfigurationError(
            setting="copies", wanted=f"at most the {len(stores)} stores", got=copies, do="add stores or keep fewer"
        )
    code = xxhash.xxh3_128_digest(_encode(key))
    scores = {store: xxhash.xxh3_64_intdigest(code + _encode(store)) for store in stores}
    ordered = sorted(stores, key=lambda store: (-scores[store], store))
    if domains is None:
        return tuple(ordered[:copies])
    domain_of = dict(zip(stores, domains, strict=True))
    seen: Counter[str] = Counter()
    turns: dict[str, int] = {}
    for store in ordered:
        turns[store] = seen[domain_of[store]]
        seen[domain_of[store]] += 1
    return tuple(sorted(ordered, key=lambda store: turns[store])[:copies])


@lru_cache(maxsize=4096)
def _encode(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")  # clause 2.8: any string is a key, a lone surrogate too
