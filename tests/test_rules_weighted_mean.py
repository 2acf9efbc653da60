"""The weighted mean, exact and fast (clauses 0.3, 0.9, 3.4)."""

import math
from collections.abc import Callable

import numpy
import pytest
import torch
from torch import Tensor

from hqde_ref.core.rules.weighted_mean import fast_weighted_mean, weighted_mean
from hqde_ref.errors import ConfigurationError, LayoutError, NotFinite, TooFewContributions


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


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize(
    ("count", "length"), [(3, 40001), (64, 16384), (65, 16390), (256, 40001), (257, 9), (1000, 1), (300, 0)]
)
@pytest.mark.parametrize("layout", ["rows", "columns", "part"])
@pytest.mark.parametrize("weighted", [False, True])
def test_an_arena_of_any_shape_and_layout_has_the_mean_on_any_number_of_threads(
    threads: int, count: int, length: int, layout: str, weighted: bool
) -> None:
    wide = torch.randn(count, length + 2, generator=torch.Generator().manual_seed(count)) + 1.0
    arena = wide[:, 1:-1]
    arena = {"rows": arena.contiguous(), "columns": arena.T.contiguous().T, "part": arena}[layout]
    weights = torch.rand(count, generator=torch.Generator().manual_seed(1), dtype=torch.float64) + 0.1
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        result = fast_weighted_mean(arena, weights=weights if weighted else None)
    finally:
        torch.set_num_threads(before)
    weights = weights if weighted else torch.ones_like(weights)
    assert torch.allclose(result.double(), (weights / weights.sum()) @ arena.double(), rtol=1e-5, atol=1e-6)


def test_the_exact_mean_is_as_good_as_it_says_and_no_better_where_sizes_differ() -> None:
    for count in (2, 7, 33):
        rows = torch.randn(count, 300, generator=torch.Generator().manual_seed(count), dtype=torch.float64)
        rows[:, ::3] *= 1e9
        limit = count * 2.0**-51 * float(rows.abs().max())
        assert float((weighted_mean(rows) - rows.mean(dim=0)).abs().max()) <= limit
    small = torch.tensor([[1e20, 1.0]] * 3, dtype=torch.float64)
    assert weighted_mean(small).tolist() == [1e20, 0.0]
    assert fast_weighted_mean(small).tolist() == pytest.approx([1e20, 1.0])


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


@pytest.mark.parametrize("weights", [[5e-324, 5e-324], [1e-310, 1e-310], [1e307, 1e307], [0.5, 0.5]])
@pytest.mark.parametrize("size", [1.0, 1e-307, 1e300])
def test_only_the_ratio_of_weights_counts_at_any_size(weights: list[float], size: float) -> None:
    rows = torch.tensor([[0.3, -0.7], [0.2, 0.1]], dtype=torch.float64) * size
    result = weighted_mean(rows, weights=weights)
    assert torch.allclose(result / size, torch.tensor([0.25, -0.3], dtype=torch.float64), rtol=1e-14)


def test_the_greatest_numbers_have_a_mean_whatever_their_weights() -> None:
    greatest = torch.finfo(torch.float64).max
    rows = torch.tensor([[greatest, greatest, 1e308], [greatest, -greatest, 0.5e308]], dtype=torch.float64)
    for weights in (None, [1.0, 1.0], [5e-324, 5e-324], [8e307, 8e307], [1e-300, 1e-300]):
        result = weighted_mean(rows, weights=weights)
        assert result.tolist() == pytest.approx([greatest, 0.0, 0.75e308], rel=1e-14)


def test_a_row_that_weighs_next_to_nothing_counts_for_next_to_nothing() -> None:
    rows = torch.tensor([[1e308], [3.0]], dtype=torch.float64)
    assert weighted_mean(rows, weights=[5e-324, 1.0]).tolist() == [3.0]
    assert weighted_mean(rows, weights=[1e308, 5e-324]).tolist() == pytest.approx([1e308], rel=1e-14)
    assert weighted_mean(rows, weights=[1e-308, 1.0]).tolist() == pytest.approx([4.0], rel=1e-14)


def test_weights_whose_sum_is_beyond_float64_are_refused_however_small_the_last() -> None:
    for weights in ([1e308, 1e308, 1.0], [1.7976931348623157e308, 5e291, 6e291]):
        with pytest.raises(ConfigurationError, match="sum of the weights of weighted_mean must be at most"):
            weighted_mean(torch.ones(3, 2), weights=weights)


@pytest.mark.parametrize("mean", [weighted_mean, fast_weighted_mean])
@pytest.mark.parametrize(
    "weights",
    [{1.0: 9.0, 2.0: 9.0, 3.0: 9.0}, {1.0, 2.0, 3.0}, {1.0: 9.0, 2.0: 9.0, 3.0: 9.0}.keys()],
    ids=["mapping", "set", "keys"],
)
def test_weights_without_an_order_are_refused(mean: Callable[..., Tensor], weights: object) -> None:
    """The keys of a dict were taken for the weights, and a set's weights went to any row."""
    kind = type(weights).__name__
    with pytest.raises(
        LayoutError, match=rf"wanted a sequence, one weight per row in their order, got {kind}; list them"
    ):
        mean(torch.eye(3), weights=weights)
    assert torch.equal(mean(torch.eye(3), weights={"a": 1.0, "b": 1.0, "c": 2.0}.values()), torch.tensor([1, 1, 2]) / 4)


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors:UserWarning")
@pytest.mark.parametrize("mean", [weighted_mean, fast_weighted_mean])
def test_weights_that_hold_no_numbers_are_refused_by_name(mean: Callable[..., Tensor]) -> None:
    ones = torch.ones(3)
    for weights, sentence in (
        (ones.to("meta"), r"got a tensor on the meta device; use real weights"),
        (ones.to_sparse(), r"got a torch.sparse_coo tensor; call to_dense\(\) first"),
        (torch.nested.nested_tensor([ones, ones]), "got a nested tensor; give every contribution exactly one weight"),
        (ones[:, None], r"got a tensor of shape \(3, 1\); give every contribution exactly one weight"),
    ):
        with pytest.raises(LayoutError, match=rf"weights of weighted_mean: wanted 3 \(one per row\), {sentence}"):
            mean(torch.eye(3), weights=weights)
    for weight, shown in (
        (torch.ones((), device="meta"), r"tensor\(.*device='meta'.*\)"),
        (10**400, r"10{49}\.\.\. \(401 characters\)"),
        (10**5000, "int too long to be written"),
    ):
        with pytest.raises(
            ConfigurationError, match=rf"weight 0 of weighted_mean must be a float64 number, got {shown};"
        ):
            mean(torch.eye(3), weights=[weight] * 3)


def test_rows_of_an_iterator_that_are_not_finite_are_named() -> None:
    """Iterated a second time it was empty, and the fast mean said that there were no rows."""
    with pytest.raises(NotFinite, match=r"weighted_mean was given NaN or infinity in row\(s\) 1"):
        fast_weighted_mean(row for row in (torch.ones(2), torch.tensor([1.0, math.nan])))  # type: ignore[arg-type]
