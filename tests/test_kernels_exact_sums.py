"""Order-free weighted means against exact rational arithmetic (clauses 0.9, 0.10, 3.3)."""

import math
import random
from fractions import Fraction

import numpy
import pytest
import torch
from torch import Tensor

from hqde_ref.core.kernels.exact_sums import (
    add_sums,
    choose_grid,
    exact_weighted_mean,
    finish_mean,
    largest_magnitudes,
    leaf_sum,
    mean_error_bound,
)
from hqde_ref.errors import ConfigurationError, LayoutError, NotFinite, TooFewContributions


def seeded(*shape: int, seed: int = 0, scale: float = 1.0, dtype: torch.dtype = torch.float32) -> Tensor:
    values = torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return (values * scale).to(dtype)


def softmax_masses(count: int, *, seed: int = 1) -> list[float]:
    draw = torch.rand(count, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    masses: list[float] = torch.softmax(draw, 0).tolist()
    return masses


def rational_mean(rows: Tensor, masses: list[float]) -> list[Fraction]:
    total = sum(map(Fraction, masses))
    return [
        sum(Fraction(x) * Fraction(m) for x, m in zip(column, masses, strict=True)) / total
        for column in rows.double().T.tolist()
    ]


def random_tree(rows: Tensor, masses: list[float], blocks: tuple[tuple[int, int], ...], *, seed: int) -> Tensor:
    draw = random.Random(seed)
    grid = choose_grid([largest_magnitudes(row, blocks) for row in rows], masses)
    members = list(range(len(rows)))
    draw.shuffle(members)
    parts = []
    while members:
        size = draw.randint(1, 4)
        group, members = members[:size], members[size:]
        parts.append(leaf_sum([rows[i] for i in group], [masses[i] for i in group], grid, blocks))
    while len(parts) > 1:
        size = draw.randint(2, 5)
        draw.shuffle(parts)
        parts = [add_sums(parts[:size]), *parts[size:]]
    return finish_mean(parts[0], math.fsum(masses), rows.dtype)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("count", [1, 2, 3, 17, 200])
def test_any_tree_gives_the_bits_of_the_flat_mean(count: int, dtype: torch.dtype) -> None:
    rows, masses, blocks = seeded(count, 97, dtype=dtype), softmax_masses(count), ((0, 40), (40, 40), (40, 97))
    flat = exact_weighted_mean(rows, masses, blocks)
    assert flat.dtype == dtype
    for seed in range(5):
        assert torch.equal(flat, random_tree(rows, masses, blocks, seed=seed))


@pytest.mark.parametrize("scale", [1e-42, 1e-30, 1.0, 1e30, 3e38 / 5])
def test_trees_agree_at_every_scale(scale: float) -> None:
    rows, masses = seeded(64, 50, scale=scale).clamp(-3.4e38, 3.4e38), [0.1 * (i + 1) for i in range(64)]
    flat = exact_weighted_mean(rows, masses)
    assert all(torch.equal(flat, random_tree(rows, masses, ((0, 50),), seed=seed)) for seed in range(5))


def test_trees_agree_where_plain_float64_sums_do_not() -> None:
    draw = torch.Generator().manual_seed(3)
    rows = seeded(64, 400, dtype=torch.float64) * 10.0 ** torch.randint(-12, 12, (64, 400), generator=draw)
    rows = torch.cat([rows, -rows])[torch.randperm(128, generator=draw)]
    backwards = rows.flip(0)
    assert not torch.equal(rows.cumsum(0)[-1], backwards.cumsum(0)[-1])
    assert torch.equal(exact_weighted_mean(rows), exact_weighted_mean(backwards))
    assert torch.equal(exact_weighted_mean(rows), random_tree(rows, [1.0] * 128, ((0, 400),), seed=0))


@pytest.mark.parametrize("count", [2, 10, 100])
def test_error_stays_below_the_bound_of_each_block(count: int) -> None:
    rows = seeded(count, 60, dtype=torch.float64)
    rows[:, 30:] *= 1e-9
    masses, blocks = softmax_masses(count), ((0, 30), (30, 60))
    tops = [largest_magnitudes(row, blocks) for row in rows]
    grid = choose_grid(tops, masses)
    total, mass = leaf_sum(list(rows), masses, grid, blocks), math.fsum(masses)
    bounds = mean_error_bound(grid, tops, masses)
    errors = [
        abs(Fraction(s) / Fraction(mass) - mean)
        for s, mean in zip(total.tolist(), rational_mean(rows, masses), strict=True)
    ]
    assert max(errors[:30]) <= bounds[0]
    assert max(errors[30:]) <= bounds[1] < bounds[0] * 1e-8


def test_error_bound_is_nearly_attained() -> None:
    """Rows just below half a grid step, beside one that sets the grid, lose all they have."""
    count = 64
    rows = torch.zeros(count, 2, dtype=torch.float64)
    rows[0, 0] = 1.0
    (exponent,) = choose_grid([largest_magnitudes(row, ((0, 2),)) for row in rows], [1.0] * count)
    rows[:, 1] = 2.0 ** (exponent - 53) * (1 - 2.0**-20)
    tops = [largest_magnitudes(row, ((0, 2),)) for row in rows]
    total = leaf_sum(list(rows), [1.0] * count, (exponent,), ((0, 2),))
    (bound,) = mean_error_bound((exponent,), tops, [1.0] * count)
    lost = float(rows[:, 1].sum() - total[1]) / count
    assert 0.98 < lost / bound <= 1.0


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_results_are_rounded_once(dtype: torch.dtype) -> None:
    digits = 11 if dtype == torch.float16 else 8
    tie = 1 + 2.0**-digits
    values = torch.tensor([tie + 2.0**-40, tie - 2.0**-40, tie], dtype=torch.float64)
    up = 1 + 2.0 ** (1 - digits)
    assert finish_mean(values, 1.0, dtype).tolist() == [up, 1.0, 1.0]
    assert finish_mean(-values, 1.0, dtype).tolist() == [-up, -1.0, -1.0]


def test_half_precision_rounding_agrees_with_numpy_everywhere() -> None:
    values = torch.cat([seeded(5000, dtype=torch.float64, scale=10.0**e) for e in range(-9, 6)])
    edges = torch.tensor([0.0, -0.0, 65519.999, 65520.0, 1e300, 2.0**-25, 2.0**-26], dtype=torch.float64)
    values = torch.cat([values, edges])
    with numpy.errstate(over="ignore"):
        wanted = torch.from_numpy(values.numpy().astype("float16"))
    assert torch.equal(finish_mean(values, 1.0, torch.float16), wanted)


def test_equal_rows_give_that_row() -> None:
    row = seeded(50)
    for count in (1, 3, 10, 49):
        assert torch.equal(exact_weighted_mean([row] * count), row)
        assert torch.equal(exact_weighted_mean([row] * count, [1.0 / count] * count), row)


def test_zero_rows_and_empty_blocks_are_fine() -> None:
    rows = torch.zeros(4, 6)
    assert torch.equal(exact_weighted_mean(rows, None, ((0, 0), (0, 6), (6, 6))), torch.zeros(6))
    assert exact_weighted_mean(torch.zeros(3, 0)).shape == (0,)
    assert largest_magnitudes(torch.ones(3), ((0, 0), (0, 3))) == (0.0, 1.0)


def test_magnitudes_show_nan_and_infinity_of_their_own_block_only() -> None:
    row = torch.tensor([1.0, math.nan, -2.0, -math.inf, -3.0])
    tops = largest_magnitudes(row, ((0, 2), (2, 3), (3, 5), (4, 5)))
    assert math.isnan(tops[0])
    assert tops[1:] == (2.0, math.inf, 3.0)


def test_inputs_are_left_as_they_were() -> None:
    rows = seeded(5, 30)
    kept = rows.clone()
    exact_weighted_mean(rows, softmax_masses(5))
    leaf = leaf_sum(list(rows), [1.0] * 5, (4,), ((0, 30),))
    copy = leaf.clone()
    add_sums([leaf, leaf])
    finish_mean(leaf, 5.0, torch.float32)
    assert torch.equal(rows, kept)
    assert torch.equal(leaf, copy)


def test_an_arena_a_list_and_strided_rows_give_the_same_bits() -> None:
    arena = seeded(6, 70)
    wanted = exact_weighted_mean(arena)
    assert torch.equal(exact_weighted_mean([row.clone() for row in arena]), wanted)
    assert torch.equal(exact_weighted_mean(arena.T.contiguous().T), wanted)


@pytest.mark.parametrize("mass", [0.0, -1.0, math.nan, math.inf])
def test_a_nonsensical_mass_is_refused(mass: float) -> None:
    with pytest.raises(ConfigurationError, match=r"weight 1 of exact weighted mean must be finite and above 0, got"):
        choose_grid([(1.0,), (1.0,)], [1.0, mass])


def test_overflowing_products_are_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"magnitude of block 1 .* at most 2\*\*1021 for 2 rows, got inf"):
        choose_grid([(1.0, 1e300), (1.0, 1.0)], [1e100, 1.0])
    with pytest.raises(ConfigurationError, match="divide all masses by a power of two: only their ratios count"):
        choose_grid([(1.7e308,)], [1.0])


@pytest.mark.parametrize("seed", range(20))
def test_means_are_right_at_any_scale_of_rows_and_masses(seed: int) -> None:
    random.seed(seed)
    for _ in range(20):
        (low, high), (least, most) = (sorted(random.choices(range(-1074, 1019), k=2)) for _ in range(2))
        rows = torch.tensor(
            [[random.uniform(-2, 2) * 2.0 ** random.randint(low, high) for _ in range(2)] for _ in range(5)],
            dtype=torch.float64,
        )
        masses = [random.uniform(1, 2) * 2.0 ** random.randint(least, most) for _ in range(5)]
        total = sum(map(Fraction, masses))
        largest = max(Fraction(m) * Fraction(float(row.abs().max())) for m, row in zip(masses, rows, strict=True))
        slack = largest / total * Fraction(2) ** -46 + Fraction(5e-324)
        for got, wanted in zip(exact_weighted_mean(rows, masses).tolist(), rational_mean(rows, masses), strict=True):
            assert abs(Fraction(got) - wanted) <= slack


def test_a_magnitude_that_is_not_finite_names_its_row() -> None:
    with pytest.raises(NotFinite, match=r"exact weighted mean was given NaN or infinity in row\(s\) 1, 2; screen"):
        choose_grid([(1.0,), (math.nan,), (math.inf,)], [1.0] * 3)


def test_shapes_that_do_not_fit_are_refused() -> None:
    with pytest.raises(TooFewContributions, match="exact weighted mean"):
        exact_weighted_mean([])
    with pytest.raises(LayoutError, match=r"weights of exact weighted mean: wanted 2 \(one per row\), got 1"):
        exact_weighted_mean(torch.ones(2, 3), [1.0])
    with pytest.raises(LayoutError, match=r"got \(2, 3\) where 1 was reached"):
        exact_weighted_mean(torch.ones(2, 3), None, ((0, 1), (2, 3)))
    with pytest.raises(LayoutError, match=r"ranges that cover 0..3, one grid exponent each"):
        leaf_sum([torch.ones(3)], [1.0], (1, 1), ((0, 3),))
    with pytest.raises(LayoutError, match="partial sums of exact weighted mean: wanted float64"):
        add_sums([torch.ones(3)])
    with pytest.raises(ConfigurationError, match="total mass"):
        finish_mean(torch.ones(3, dtype=torch.float64), 0.0, torch.float32)
