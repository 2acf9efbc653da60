"""How a batch is cut into one slice per worker, and which share of a GPU each host gets.

Source: HQDE clauses 1.1 and 1.3 with errata E1, E2. Pure.
"""

from __future__ import annotations

from hqde_ref.errors import require_integer

__all__ = ["gpu_share", "split_batch"]

_COUNT = "count what there is"
_UNITS = 10_000  # Ray keeps resources in units of 1e-4


def split_batch(*, samples: int, workers: int) -> tuple[tuple[int, int], ...]:
    """Half-open slices: floor(samples / workers) each, the last takes the rest (clause 1.3).

    A batch shorter than the number of workers leaves all but the last slice empty (E2).

    Raises:
        ConfigurationError: unless samples >= 0 and workers >= 1.
    """
    require_integer("samples", samples, least=0, do=_COUNT)
    require_integer("workers", workers, least=1, do=_COUNT)
    each = samples // workers
    stops = [each * (index + 1) for index in range(workers - 1)] + [samples]
    return tuple((each * index, stop) for index, stop in enumerate(stops))


def gpu_share(*, workers: int, gpus: int) -> float:
    """The GPUs each of W workers gets so that all can be placed at once (clause 1.1).

    The document's G / W hangs for three workers on two GPUs, and Ray refuses it for two on three (E1).

    Raises:
        ConfigurationError: unless workers >= 1 and gpus >= 0.
    """
    require_integer("workers", workers, least=1, do=_COUNT)
    require_integer("gpus", gpus, least=0, do=_COUNT)
    if gpus == 0:
        return 0.0
    if workers <= gpus:
        return float(gpus // workers)
    crowd = -(-workers // gpus)
    return (_UNITS // crowd) / _UNITS
