"""The weighted mean, exact and fast (clauses 0.3, 0.9, 3.4)."""

import math

import numpy
import pytest
import torch

from hqde_ref.core.rules.weighted_mean import fast_weighted_mean, weighted_mean
from hqde_ref.errors import LayoutError, NotFinite, TooFewContributions


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("length", [0, 1, 7, 70000])
def test_exact_and_fast_agree_with_numpy(dtype: torch.dtype, length: int) -> None:
    rows = torch.randn(5, length, generator=torch.Generator().manual_seed(length)).to(dtype)
    weights = [0.5, 1.0, 2.0, 0.25, 4.0]
    wanted = torch.from_numpy(numpy.average(rows.double().numpy(), axis=0, weights=weights))
    for result in (
        weighted_mean(rows, weights=weights),
        fast_weighted_mean(rows, weights=weights),
        fast_weighted_mean(list(rows), weights=weights),
    ):
        assert result.dtype == dtype
        assert torch.allclose(result.double(), wanted, rtol=torch.finfo(dtype).eps, atol=torch.finfo(dtype).eps)


def test_the_exact_mean_does_not_depend_on_order() -> None:
    rows = torch.randn(9, 1000, generator=torch.Generator().manual_seed(0))
    assert torch.equal(weighted_mean(rows), weighted_mean(list(rows.flip(0))))


def test_fast_mean_names_rows_that_are_not_finite() -> None:
    rows = torch.ones(4, 3)
    rows[2, 1] = math.inf
    for updates in (rows, list(rows)):
        with pytest.raises(NotFinite, match=r"weighted_mean was given NaN or infinity in row\(s\) 2; screen"):
            fast_weighted_mean(updates)


def test_large_finite_rows_are_no_false_alarm() -> None:
    rows = torch.full((2, 1000), 3e38)
    assert torch.equal(fast_weighted_mean(list(rows)), rows[0])


def test_wrong_numbers_of_rows_or_weights_are_refused() -> None:
    with pytest.raises(TooFewContributions):
        weighted_mean([])
    with pytest.raises(LayoutError, match=r"weights of weighted_mean: wanted 2 \(one per row\), got 3"):
        weighted_mean(torch.ones(2, 2), weights=[1.0, 1.0, 1.0])
