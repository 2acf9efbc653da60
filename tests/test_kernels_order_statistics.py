"""Networks, sorted blocks and what is built on them, against NumPy's sort (clauses 0.3, 0.5, 0.9, 4.5)."""

import itertools
import math
from fractions import Fraction

import numpy
import pytest
import torch
from torch import Tensor

from hqde_ref.core.kernels.nearest import nearest_mean
from hqde_ref.core.kernels.networks import selection_program
from hqde_ref.core.kernels.order_statistics import mean_of_middle, median_rows, ordered_blocks
from hqde_ref.errors import NotFinite


def tied(count: int, length: int, *, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    """Small integers with zeros of both signs: every coordinate has ties."""
    generator = torch.Generator().manual_seed(seed)
    values = torch.randint(-3, 4, (count, length), generator=generator).to(dtype)
    signs = torch.randint(0, 2, (count, length), generator=generator).to(dtype) * 2 - 1
    return values * signs


def spread(count: int, length: int, *, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(count, length, generator=torch.Generator().manual_seed(seed)).to(dtype)


def run(program: object, values: list[float], ranks: tuple[int, ...]) -> list[float]:
    registers = values + [math.nan] * program.scratch  # type: ignore[attr-defined]
    for is_maximum, a, b, target in program.steps:  # type: ignore[attr-defined]
        registers[target] = max(registers[a], registers[b]) if is_maximum else min(registers[a], registers[b])
    assert registers[: len(values)] == values, "inputs were overwritten"
    return [registers[program.places[rank]] for rank in ranks]  # type: ignore[attr-defined]


@pytest.mark.parametrize("count", range(1, 10))
def test_programs_select_every_rank_of_every_zero_one_input(count: int) -> None:
    """By the zero-one principle that proves them for all inputs."""
    for ranks in [(k,) for k in range(count)] + [tuple(range(count)), (0, count // 2, count - 1)]:
        program = selection_program(count, tuple(sorted(set(ranks))))
        for bits in itertools.product([0.0, 1.0], repeat=count):
            assert run(program, list(bits), ranks) == [sorted(bits)[rank] for rank in ranks]


def test_a_median_of_eight_takes_as_few_exchanges_as_known() -> None:
    assert len(selection_program(8, (3,)).steps) == 27
    assert len(selection_program(8, (0, 3, 7)).steps) == 29


@pytest.mark.parametrize("count", [*range(1, 20), 31, 32, 33, 47, 48, 49, 64, 100])
@pytest.mark.parametrize("make", [tied, spread])
def test_lower_median_is_that_of_torch(count: int, make: object) -> None:
    rows = make(count, 300, seed=count)  # type: ignore[operator]
    assert torch.equal(median_rows(rows.unbind(0), lower=True, rule="test"), rows.median(dim=0).values)
    wanted = numpy.median(rows.double().numpy(), axis=0).astype("float32")
    assert numpy.array_equal(median_rows(rows.unbind(0), lower=False, rule="test").numpy(), wanted)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("count", [4, 7, 60])
def test_every_dtype_is_ordered_exactly_and_rounded_once(count: int, dtype: torch.dtype) -> None:
    rows = spread(count, 500, dtype=dtype)
    assert torch.equal(median_rows(rows.unbind(0), lower=True, rule="test"), rows.median(dim=0).values)
    middle = torch.from_numpy(numpy.median(rows.double().numpy(), axis=0))
    assert torch.equal(
        median_rows(rows.unbind(0), lower=False, rule="test"),
        middle.float().to(dtype) if dtype != torch.float64 else middle,
    )
    trimmed = mean_of_middle(rows.unbind(0), trimmed=1, rule="test")
    wanted = numpy.sort(rows.double().numpy(), axis=0)[1:-1].mean(axis=0)
    tolerance = torch.finfo(dtype).eps
    assert torch.allclose(trimmed.double(), torch.from_numpy(wanted), rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize(("count", "length"), [(3, 1), (8, 33000), (17, 33000), (48, 50), (49, 5000), (130, 2100)])
def test_trimmed_mean_is_the_mean_of_the_sorted_middle(count: int, length: int) -> None:
    rows = spread(count, length, seed=count)
    trimmed = (count - 1) // 3
    wanted = numpy.sort(rows.double().numpy(), axis=0)[trimmed : count - trimmed].mean(axis=0)
    result = mean_of_middle(rows.unbind(0), trimmed=trimmed, rule="test")
    assert numpy.abs(result.numpy() - wanted).max() < 1e-6


@pytest.mark.parametrize("count", [5, 8, 30, 60])
def test_order_leaves_no_trace(count: int) -> None:
    rows = torch.cat([spread(count - 1, 2000), spread(1, 2000) * 1e6])
    for seed in range(3):
        other = list(rows[torch.randperm(count, generator=torch.Generator().manual_seed(seed))])
        assert torch.equal(mean_of_middle(other, trimmed=1, rule="t"), mean_of_middle(list(rows), trimmed=1, rule="t"))
        assert torch.equal(nearest_mean(other, keep=3, rule="t"), nearest_mean(list(rows), keep=3, rule="t"))


@pytest.mark.parametrize("count", [3, 6, 7, 10, 49, 50])
def test_equal_rows_give_that_row(count: int) -> None:
    row = spread(1, 999, seed=9)[0]
    for keep in range(1, count + 1):
        assert torch.equal(nearest_mean([row] * count, keep=keep, rule="test"), row)
    assert torch.equal(mean_of_middle([row] * count, trimmed=1, rule="test"), row)


def slow_nearest_mean(column: list[float], keep: int) -> float:
    """Mean over every choice of ``keep`` nearest values that is not beaten, lowest and highest of them averaged."""
    values = sorted(column)
    median = (values[(len(values) - 1) // 2] + values[len(values) // 2]) / 2
    nearest = sorted(abs(value - median) for value in values)[:keep]
    fits = [
        window
        for window in (values[i : i + keep] for i in range(len(values) - keep + 1))
        if sorted(abs(value - median) for value in window) == nearest
    ]
    return (sum(fits[0]) / keep + sum(fits[-1]) / keep) / 2


@pytest.mark.parametrize("count", [1, 2, 5, 6, 9, 12, 50])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16])
def test_nearest_mean_is_the_definition_with_ties_shared(count: int, dtype: torch.dtype) -> None:
    rows = tied(count, 60, seed=count, dtype=dtype)
    for keep in {1, (count + 1) // 2, max(1, count - 1), count}:
        wanted = torch.tensor([slow_nearest_mean(column, keep) for column in rows.double().T.tolist()])
        result = nearest_mean(rows.unbind(0), keep=keep, rule="test")
        assert torch.allclose(result.double(), wanted.double(), rtol=2 * torch.finfo(dtype).eps, atol=1e-6)


def exact_nearest_mean(column: list[float], keep: int) -> float:
    """The definition in rationals: ``slow_nearest_mean`` rounds its median too."""
    values = sorted(map(Fraction, column))
    twice = values[(len(values) - 1) // 2] + values[len(values) // 2]
    lefts = [values[i] + values[i + keep] for i in range(len(values) - keep)]
    first, last = sum(ends < twice for ends in lefts), sum(ends <= twice for ends in lefts)
    return float((sum(values[first : first + keep]) + sum(values[last : last + keep])) / (2 * keep))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize(("size", "offset"), [(1.0, 0.0), (1e-3, 1.0), (2e-2, 1.0), ("greatest", 0.0)])
def test_the_window_nearest_to_the_median_is_chosen_exactly(
    dtype: torch.dtype, size: float | str, offset: float
) -> None:
    """Around a midpoint rounded to the rows' dtype, windows of rows close together were told apart wrongly."""
    scale = torch.finfo(dtype).max if isinstance(size, str) else size
    for count in (4, 5, 8, 11):
        uniform = torch.rand(count, 400, generator=torch.Generator().manual_seed(count), dtype=torch.float64)
        rows = ((2.0 * uniform - 1.0) * scale + offset).to(dtype)
        for keep in range((count + 1) // 2, count):
            exact = [exact_nearest_mean(column, keep) for column in rows.double().T.tolist()]
            wanted = torch.tensor(exact, dtype=torch.float64)
            found = nearest_mean(rows.unbind(0), keep=keep, rule="test")
            assert torch.isfinite(found).all()
            rounding = keep * torch.finfo(dtype).eps * rows.double().abs().amax(dim=0)  # of a sum of so many
            assert ((found.double() - wanted).abs() <= rounding).all(), (count, keep)


def test_rows_without_coordinates_have_a_nearest_mean() -> None:
    for keep in (2, 3):
        assert nearest_mean([torch.zeros(0)] * 3, keep=keep, rule="t").shape == (0,)


def test_equally_near_windows_share_where_their_median_is_no_number_of_the_dtype() -> None:
    unit = 2.0**-23
    near = torch.tensor([[0.0], [999.0], [1000.0], [2000.0]]) * unit + 1.0  # median 999.5 units: the first three
    tied = torch.tensor([[0.0], [1000.0], [1001.0], [2001.0]]) * unit + 1.0  # 667 and 1334: 1000.5
    assert float(nearest_mean(near.unbind(0), keep=3, rule="t") - 1.0) / unit == 667.0
    assert float(nearest_mean(tied.unbind(0), keep=3, rule="t") - 1.0) / unit in (1000.0, 1001.0)


def test_nearest_mean_is_odd_under_negation() -> None:
    rows = tied(8, 200)
    there, back = nearest_mean(rows.unbind(0), keep=5, rule="t"), nearest_mean((-rows).unbind(0), keep=5, rule="t")
    assert torch.equal(back, -there)


@pytest.mark.parametrize("count", [2, 5, 16, 50])
@pytest.mark.parametrize("poison", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_is_refused_on_every_path(count: int, poison: float) -> None:
    rows = spread(count, 70)
    rows[1, 69] = poison
    for updates in (rows.unbind(0), [row.clone() for row in rows]):
        with pytest.raises(NotFinite, match=r"test was given NaN or infinity in row\(s\) 1; screen"):
            median_rows(updates, lower=True, rule="test")


@pytest.mark.parametrize("count", [4, 5, 50])
def test_the_greatest_numbers_are_no_false_alarm(count: int) -> None:
    rows = torch.full((count, 40), 3e38)
    rows[0] *= -1
    assert torch.equal(median_rows(rows.unbind(0), lower=False, rule="test"), rows[1])


def test_shapes_can_be_checked_without_data() -> None:
    rows = [torch.empty(100, device="meta") for _ in range(5)]
    assert median_rows(rows, lower=True, rule="test").device.type == "meta"
    assert mean_of_middle(rows, trimmed=1, rule="test").shape == (100,)


def test_blocks_come_in_order_and_cover_all() -> None:
    rows = spread(3, 70000).unbind(0)
    edges = [(low, high) for low, high, _ in ordered_blocks(rows, (1,), rule="test")]
    assert [low for low, _ in edges] == [0] + [high for _, high in edges[:-1]]
    assert edges[-1][1] == 70000
