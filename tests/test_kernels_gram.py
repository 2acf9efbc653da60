"""Distances from blocked products, against float64 differences (clause 4.7)."""

import pytest
import torch
from torch import Tensor

from hqde_ref.core.kernels.centres import choose_centre
from hqde_ref.core.kernels.gram import centred_gram, distances
from hqde_ref.core.kernels.gram_blocks import centred_blocks, products_around

PIECE, BLOCK, GROUP = 784, 83 * 784, 128


def seeded(count: int, length: int, *, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(count, length, generator=torch.Generator().manual_seed(count + length)).to(dtype)


def squares(rows: Tensor) -> Tensor:
    x = rows.double()
    return torch.cdist(x, x, compute_mode="donot_use_mm_for_euclid_dist").square()


@pytest.mark.parametrize("length", [1, PIECE - 1, PIECE, PIECE + 1, BLOCK, BLOCK + PIECE + 3])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("offset", [0.0, 3.0])
def test_distances_keep_their_digits_at_every_seam_of_pieces_and_blocks(
    length: int, dtype: torch.dtype, offset: float
) -> None:
    rows = seeded(5, length, dtype=dtype) + offset
    gram = centred_gram(rows.unbind(0), rule="test", weights=[1.0] * 5)
    found = distances(gram).square() * 4.0**gram.unit
    assert torch.allclose(found, squares(rows), rtol=4e-7, atol=1e-12)


@pytest.mark.parametrize("count", [4, 8, 16, 32, 64])
def test_rows_of_a_full_block_begin_all_over_the_first_cache(count: int) -> None:
    """64 places of a line each: rows a power of two apart would share a few of them."""
    _, _, block = next(centred_blocks(list(torch.zeros(count, 1 << 17)), None, (0,) * count))
    lines = block.stride(0) * block.element_size() / 64
    assert len({row * lines % 64 for row in range(count)}) == count


@pytest.mark.parametrize("count", [GROUP - 1, GROUP, GROUP + 1, 2 * GROUP + 3])
@pytest.mark.parametrize("centre", [None, 7])
def test_products_are_whole_at_every_seam_of_groups(count: int, centre: int | None) -> None:
    rows = seeded(count, PIECE + 5)
    x = rows.double() if centre is None else rows.double() - rows[centre].double()
    found = products_around(rows.unbind(0), centre, (0,) * count)
    assert torch.equal(found, found.T)
    assert torch.allclose(found, x @ x.T, rtol=2e-6, atol=2e-3)


@pytest.mark.parametrize("spread", [1e-160, 1e-3, 1.0, 1e6, 1e20])
def test_a_centre_is_chosen_by_differences_however_small_beside_the_rows(spread: float) -> None:
    """Squares of differences vanished in units of the rows' size, and an outlier was as near as any."""
    near = [0.3, 0.0, 0.1, 0.2, 0.25, 0.15]
    rows = torch.tensor([[1e200, spread * 1e3], *([1e200, spread * x] for x in near)], dtype=torch.float64)
    assert choose_centre(list(rows), [1.0] * 7) != 0
    assert choose_centre(list(rows.flip(0)), [1.0] * 7) != 6
    assert choose_centre(list(rows * 2.0**350), [1.0] * 7) != 0
