"""Claims about robust rules that are false, each with an input that refutes it; and inputs that attain what is tight.

n rows, the last f of them liars, h = n - f honest ones, mu and V their mean and mean squared distance from it.

Source: HQDE clause 4.5; the bounds are those of ``hqde_ref.core.rules.bounds`` and of the papers named test by test.
Inputs are small numbers on purpose: all can be followed by hand. Where a bound is a limit, HAIR is what is left of it.
"""

import math

import pytest
import torch
from torch import Tensor

from hqde_ref.core.rules import RULES, Bound, Rule, get_rule, ratio_to_bound
from hqde_ref.core.rules.bucketing import average_buckets
from hqde_ref.core.rules.clipping import clip_rows
from hqde_ref.core.rules.filtered_geometric_median import choose_outliers
from simulator.proven_bounds import PROVEN, kappa_after

HAIR = 2.0**-24
SIZES = [(5, 2), (7, 1), (7, 2), (7, 3), (9, 4), (10, 3), (13, 4)]


def column(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)[:, None]


def plane(*points: tuple[float, float]) -> Tensor:
    return torch.tensor(points, dtype=torch.float64)


def aggregate(name: str, rows: Tensor, faulty: int, **options: object) -> Tensor:
    return get_rule(name).aggregate(rows, faulty_max=faulty, **options)


def kappa_reached(result: Tensor, honest: Tensor) -> float:
    """|result - mu|^2 / V."""
    mean = honest.mean(dim=0)
    return float(((result - mean) ** 2).sum() * len(honest) / ((honest - mean) ** 2).sum())


def place_in_box(result: Tensor, honest: Tensor) -> float:
    """Where the worst coordinate lies: 0 in the middle of the honest range, 1 on its edge, above 1 outside."""
    low, high = honest.amin(dim=0), honest.amax(dim=0)
    return float(((2 * result - low - high).abs() / (high - low)).max())


def mirrored(count: int, faulty: int) -> Tensor:
    """f honest rows at -1, the other n - 2f at 0, and the liars opposite, nearer to 0 by a hair: they seem honest."""
    return column(*[-1.0] * faulty, *[0.0] * (count - 2 * faulty), *[1.0 - HAIR] * faulty)


def two_places(at_zero: int, at_one: int) -> list[tuple[float, float]]:
    """Points at (0, 0) and (1, 0); two at 0 stand a hair off the line, so that half of all at 1 make it the median."""
    return [(0.0, HAIR), (0.0, -HAIR), *[(0.0, 0.0)] * (at_zero - 2), *[(1.0, 0.0)] * at_one]


def on_the_unit_circle(count: int, faulty: int) -> tuple[Tensor, float]:
    """h - 1 honest rows in pairs and one opposite, liars behind; and how far out the geometric median lies.

    From there each line to one of the pairs touches the circle, and the pulls of all rows add up to nothing.
    """
    pull = (faulty - 1) / (count - faulty - 1)
    far = 1.0 / math.sqrt(1.0 - pull * pull)
    pair = [(1.0 / far, pull), (1.0 / far, -pull)]
    return plane(*pair * ((count - faulty - 1) // 2), (-1.0, 0.0), *[(1e6, 0.0)] * faulty), far


# Claims that are false.


def test_bulyan_leaves_the_honest_box() -> None:
    """It picks -10, -10, 0, 0 and the lie 9; the three nearest to their median 0 are 0, 0, 9. Claim: El Mhamdi 2018."""
    honest = plane((-10, 0), (-10, 0), (0, 0), (0, 0), (0, 100), (0, -100))
    result = aggregate("bulyan", torch.cat([honest, plane((9, 0))]), 1)
    assert result.tolist() == [3.0, 0.0]
    assert place_in_box(result, honest) == pytest.approx(1.6)


@pytest.mark.parametrize(("count", "faulty", "place"), [(7, 3, 2.5), (10, 3, 13 / 7)])
def test_mean_around_median_leaves_the_honest_box(count: int, faulty: int, place: float) -> None:
    """The median is 0, and the liars are nearer to it than the honest at -1 (Xie et al. 2018)."""
    rows = mirrored(count, faulty)
    result = aggregate("mean_around_median", rows, faulty)
    assert place_in_box(result, rows[: count - faulty]) == pytest.approx(place, abs=1e-6)


def test_krum_errs_more_than_a_geometric_median_may() -> None:
    """Claim: kappa <= n / (n - 2f). Two honest rows at 1 lend their nearness to liars beyond them: 2.9 times that."""
    honest = plane((0, 0), (0, 0), (0, 0), (1, 0.1), (1, -0.1))
    liars = plane((1.6875, 0), (1.6875, 0))
    result = aggregate("krum", torch.cat([honest, liars]), 2)
    assert torch.equal(result, liars[0])
    assert kappa_reached(result, honest) > 2.9 * 7 / (7 - 4)


@pytest.mark.parametrize(("count", "faulty"), [(7, 1), (7, 2), (10, 3), (13, 4)])
def test_multi_krum_errs_twice_as_much_as_claimed(count: int, faulty: int) -> None:
    """Claim: kappa <= 2f / (n - 2f). The liars are averaged in place of the honest at -1."""
    rows = mirrored(count, faulty)
    reached = kappa_reached(aggregate("multi_krum", rows, faulty), rows[: count - faulty])
    assert reached / (2 * faulty / (count - 2 * faulty)) == pytest.approx(2.0, abs=1e-6)


@pytest.mark.parametrize(("count", "faulty"), SIZES)
def test_the_minimum_diameter_mean_errs_by_twice_the_share_of_the_liars(count: int, faulty: int) -> None:
    """Claim: |F - mu| <= f / (n - f) of the diameter. True is 2f / (n - f), and attained (Farhadkhani et al. 2022)."""
    rows = mirrored(count, faulty)
    error = float((aggregate("minimum_diameter_mean", rows, faulty) - rows[: count - faulty].mean(dim=0)).abs())
    assert error / (faulty / (count - faulty)) == pytest.approx(2.0, abs=1e-6)
    assert error / (2 * faulty / (count - faulty)) == pytest.approx(1.0, abs=1e-6)


@pytest.mark.parametrize("faulty", [1, 2, 4, 8, 16])
def test_the_minimum_diameter_mean_has_no_kappa_of_order_f_over_n(faulty: int) -> None:
    """One honest row at -1 sets the diameter, f liars at 1 keep to it: kappa is (f + 1)^2 / (n - f - 1).

    With f / n = 1 / 5 throughout, what should stay a constant grows with f.
    """
    count = 5 * faulty
    honest = column(-1.0, *[-HAIR] * (faulty - 1), *[0.0] * (count - 2 * faulty))
    result = aggregate("minimum_diameter_mean", torch.cat([honest, column(*[1.0 - 2 * HAIR] * faulty)]), faulty)
    reached = kappa_reached(result, honest)
    assert reached / ((faulty + 1) ** 2 / (count - faulty - 1)) == pytest.approx(1.0, abs=1e-6)
    assert reached / (faulty / count) > 1.25 * faulty


@pytest.mark.parametrize(("count", "faulty", "least"), [(9, 4, 1.51), (13, 4, 1.07), (100, 33, 1.143)])
def test_the_geometric_median_leaves_the_honest_minimum_enclosing_ball(count: int, faulty: int, least: float) -> None:
    """The honest lie on the unit circle on both sides of its centre, so the unit ball is the least around them.

    It stays below Minsker's constant (2015, Lemma 2.1), which holds for every ball.
    """
    rows, far = on_the_unit_circle(count, faulty)
    honest = rows[: count - faulty]
    assert torch.allclose(honest.norm(dim=1), torch.ones(count - faulty, dtype=torch.float64), rtol=0, atol=1e-12)
    assert float(honest[:, 0].min()) < 0 < float(honest[:, 0].max())
    out = float(aggregate("geometric_median", rows, faulty).norm())
    assert out == pytest.approx(far, abs=1e-6)
    share = faulty / (count - faulty)
    assert least < out < 1.0 / math.sqrt(1.0 - share * share)


def test_the_geometric_median_leaves_the_honest_box() -> None:
    rows, _ = on_the_unit_circle(9, 4)
    assert place_in_box(aggregate("geometric_median", rows, 4), rows[:5]) > 2.0


@pytest.mark.parametrize("size", [1.0, 1e6])
def test_a_multiplicative_approximation_of_the_geometric_median_has_no_bound(size: float) -> None:
    """Seven honest rows agree on 0. At 0.075 R the sum of distances is only 1.1 times the least, whatever R is.

    The rule gives 0. An additive gap does bound the distance, by gap / (n - 2f), which is attained here.
    """
    rows = column(*[0.0] * 7, *[size] * 3)
    approximate = column(0.075 * size)[0]
    least, sum_of_distances = float(rows.norm(dim=1).sum()), float((rows - approximate).norm(dim=1).sum())
    assert aggregate("geometric_median", rows, 3).tolist() == [0.0]
    assert sum_of_distances <= 1.1 * least * (1 + 1e-12)
    assert float(approximate.norm()) / ((sum_of_distances - least) / (10 - 2 * 3)) == pytest.approx(1.0, abs=1e-6)


# Bounds that are attained.


def ranks(name: str, count: int, faulty: int) -> tuple[int, int]:
    """The first and the last rank that a rule averages, from 1."""
    if name == "trimmed_mean":
        return faulty + 1, count - faulty
    return (count + 1) // 2, count // 2 + 1 if name == "coordinate_median" else (count + 1) // 2


@pytest.mark.parametrize("name", ["coordinate_median", "lower_coordinate_median", "trimmed_mean"])
@pytest.mark.parametrize(("count", "faulty"), [*SIZES, (10, 4), (12, 3)])
def test_liars_shift_ranks_by_f_and_no_more(name: str, count: int, faulty: int) -> None:
    """Between the mean of h_(a-f)..h_(b-f) and of h_a..h_b for a rule of ranks a..b; liars far off attain both ends."""
    generator = torch.Generator().manual_seed(count)
    honest = torch.stack([torch.randperm(64, generator=generator)[: count - faulty] for _ in range(5)], dim=1).double()
    ordered, (first, last) = honest.sort(dim=0).values, ranks(name, count, faulty)
    for lie, shift in ((-1e9, faulty), (1e9, 0)):
        rows = torch.cat([honest, torch.full((faulty, 5), lie, dtype=torch.float64)])
        wanted = ordered[first - shift - 1 : last - shift].mean(dim=0)
        assert torch.allclose(aggregate(name, rows, faulty), wanted, rtol=1e-15, atol=0)


def attaining(name: str, measure: str, count: int, faulty: int) -> tuple[Tensor, Tensor]:
    """Rows that attain a tight bound of the rule or come within a hair of it, the last f of them liars; and z."""
    half = count // 2  # honest rows at 0 that are outvoted, with n odd one less than half
    match name, measure:
        case ("coordinate_median", _) | ("trimmed_mean", _):
            trimmed = faulty if name == "trimmed_mean" else (count - 1) // 2
            rows = column(*[0.0] * trimmed, *[1.0] * (count - faulty - trimmed), *[1e6] * faulty)
        case "lower_coordinate_median", _:
            rows = column(*[0.0] * half, *[-1.0] * (count - faulty - half), *[-1e6] * faulty)
        case ("mean_around_median", "range") | ("minimum_diameter_mean", "diameter"):
            rows = mirrored(count, faulty)
        case "geometric_median", "radius":
            rows = on_a_cone(count, faulty)
        case ("geometric_median", "variance" | "distances") | ("blockwise_geometric_median", "variance"):
            rows = plane(*two_places(half, count - half - faulty), *[(1.0, 0.0)] * faulty)
        case _:
            raise AssertionError(f"the {measure} bound of {name} is called tight, and nothing here attains it")
    return rows, torch.zeros_like(rows[0])


def on_a_cone(count: int, faulty: int) -> Tensor:
    """Honest rows on the unit sphere around 0, all seen from the median under one angle, the liars right behind it.

    The lines from the median touch the sphere there, and the pulls add up to nothing.
    """
    honest = count - faulty
    pull = faulty / honest
    turns = torch.arange(honest, dtype=torch.float64) * (2 * math.pi / honest)
    far = torch.full((honest,), math.sqrt(1 - pull * pull), dtype=torch.float64)
    rows = torch.stack([far, pull * turns.cos(), pull * turns.sin()], dim=1)
    return torch.cat([rows, torch.tensor([[1e6, 0.0, 0.0]] * faulty, dtype=torch.float64)])


TIGHT = [
    pytest.param(rule, bound, id=f"{name}-{bound.measure}")
    for name, rule in RULES.items()
    for bound in rule.bounds
    if bound.tight
]


@pytest.mark.parametrize(("rule", "bound"), TIGHT)
@pytest.mark.parametrize(("count", "faulty"), [*SIZES, (6, 1), (8, 3), (10, 1), (10, 4), (12, 3)])
def test_a_bound_that_is_called_tight_is_attained(rule: Rule, bound: Bound, count: int, faulty: int) -> None:
    """The registry's word for it: ratio 1.000, so that whoever believes a smaller constant is refuted here."""
    rows, point = attaining(rule.name, bound.measure, count, faulty)
    result = rule.aggregate(rows, faulty_max=faulty)
    reached = ratio_to_bound(bound, result, rows[:-faulty], faulty=faulty, point=point)
    assert reached == pytest.approx(1.0, abs=1e-6)


@pytest.mark.parametrize(("count", "faulty"), SIZES)
def test_mixing_before_a_trimmed_mean_doubles_its_error(count: int, faulty: int) -> None:
    """It reaches 4f / (n - f) (kappa + 1) = 4f / (n - 2f), half of what is proven (Allouah et al. 2023, Lemma 1)."""
    rows = mirrored(count, faulty)
    reached = kappa_reached(aggregate("mixed_trimmed_mean", rows, faulty), rows[: count - faulty])
    assert reached / (4 * faulty / (count - 2 * faulty)) == pytest.approx(1.0, abs=1e-6)
    assert reached / PROVEN["mixed_trimmed_mean"](count, faulty) == pytest.approx(0.5, abs=1e-6)


@pytest.mark.parametrize(("count", "faulty", "trimmed"), [(7, 1, 2), (7, 1, 3), (10, 2, 4), (10, 0, 3)])
def test_trimming_more_than_there_are_liars_has_a_constant_of_its_own(count: int, faulty: int, trimmed: int) -> None:
    """kappa = t / (n - f - t) for t >= f trimmed a side."""
    honest = column(*[0.0] * trimmed, *[1.0] * (count - faulty - trimmed))
    result = aggregate("trimmed_mean", torch.cat([honest, column(*[1e6] * faulty)]), trimmed)
    assert kappa_reached(result, honest) / (trimmed / (count - faulty - trimmed)) == pytest.approx(1.0, abs=1e-9)


@pytest.mark.parametrize("liars", [0.1, 0.3, 0.45])
def test_the_weighted_geometric_median_attains_its_bound(liars: float) -> None:
    """|F - mu|^2 <= V / (1 - 2a), mu and V weighted, a the liars' weight: just over half of it is at 1."""
    weights = torch.tensor([0.5 - HAIR / 4, 0.5 + HAIR / 4 - liars, liars], dtype=torch.float64)
    result = aggregate("geometric_median", column(0.0, 1.0, 1.0), 1, weights=weights.tolist())
    share = float(weights[1] / (weights[0] + weights[1]))
    assert result.tolist() == [1.0]
    assert (1 - share) ** 2 / (share * (1 - share) / (1 - 2 * liars)) == pytest.approx(1.0, abs=1e-6)


@pytest.mark.parametrize(("count", "faulty", "absent"), [(8, 2, 1), (10, 2, 3), (12, 3, 3), (13, 3, 4)])
@pytest.mark.parametrize("name", ["coordinate_median", "geometric_median", "trimmed_mean"])
def test_absent_honest_rows_cost_what_the_bound_says(name: str, count: int, faulty: int, absent: int) -> None:
    """All absent rows would have been at 0, together with as many as the rule can be kept away from."""
    resting = math.ceil((count - absent - 2 * faulty) / 2)
    at_one = count - 2 * faulty - absent if name == "trimmed_mean" else resting
    honest = column(*[0.0] * (count - faulty - at_one), *[1.0] * at_one)
    lie = 1e6 if name == "trimmed_mean" else 1.0
    result = aggregate(name, torch.cat([honest[absent:], column(*[lie] * faulty)]), faulty)
    kappa = (count - faulty - at_one) / at_one
    assert kappa_reached(result, honest) / kappa == pytest.approx(1.0, abs=1e-9)
    if name != "coordinate_median":  # the judge has no constant of its own for that one
        assert kappa_after(name, arrived=count, faulty_max=faulty, dropped=absent) == pytest.approx(kappa)


@pytest.mark.parametrize("count", [4, 6, 10])
def test_the_filtered_median_attains_its_constant_where_it_rejects_an_honest_row(count: int) -> None:
    """One liar, n even: half of all rows are at 1, so the scores' median is 0 and one honest row at 0 is rejected."""
    honest = plane(*two_places(count // 2, count // 2 - 1))
    rows = torch.cat([honest, plane((1, 0))])
    rejected = set(range(count)) - set(choose_outliers(rows, rejections_max=1).kept)
    assert rejected < set(range(count // 2))
    result = aggregate("filtered_geometric_median", rows, 1)
    reached = kappa_reached(result, honest) / PROVEN["filtered_geometric_median"](count, 1)
    assert reached == pytest.approx(1.0, abs=1e-6)


def test_the_filtered_median_goes_as_far_from_the_centre_as_the_rows_kept() -> None:
    """|F - m| <= max(factor S, farthest honest score), S the median score: here m = 0, S = 1, and F = 1 is attained."""
    rows = column(1.0, 1.0, -1.0, -100.0)
    screening = choose_outliers(rows, rejections_max=1, factor=1.0)
    assert (screening.kept, screening.limit) == ((0, 1, 2), 1.0)
    assert aggregate("filtered_geometric_median", rows, 1, factor=1.0).tolist() == [1.0]


@pytest.mark.parametrize(("buckets", "faulty"), [(5, 2), (7, 2), (10, 3)])
def test_buckets_keep_the_bound_of_their_number(buckets: int, faulty: int) -> None:
    """Each liar spoils one bucket of two; the rest is a trimmed mean of n / 2 rows (Karimireddy et al. 2022)."""
    honest = column(*[0.0] * faulty, *[1.0] * (buckets - 2 * faulty))
    rows = torch.cat([honest.repeat_interleave(2, dim=0), column(*[1.0, 1e6] * faulty)])
    averaged = torch.stack(list(average_buckets(rows, size=2, order=range(2 * buckets))))
    reached = kappa_reached(aggregate("trimmed_mean", averaged, faulty), honest)
    assert reached / (faulty / (buckets - 2 * faulty)) == pytest.approx(1.0, abs=1e-9)


@pytest.mark.parametrize("steps", [1, 4])
def test_clipping_moves_by_its_radius_a_step(steps: int) -> None:
    """|F - v| <= L tau after L steps (Karimireddy et al. 2021): all rows pull one way from afar."""
    start = torch.zeros(1, dtype=torch.float64)
    result = aggregate("centred_clipping", column(*[100.0] * 5), 2, reference=start, radius=0.5, steps=steps)
    assert float(result) / (steps * 0.5) == pytest.approx(1.0, abs=1e-9)


def test_a_mean_of_clipped_rows_attains_its_bound() -> None:
    """|F - mu| <= f / n (|mu| + tau) + 1 / n sum of honest (|x| - tau)_+: no constant times V, which is 0 here."""
    result = aggregate("weighted_mean", torch.stack(clip_rows(column(2.0, 2.0, 2.0, -100.0), limit=1.0)), 0)
    assert abs(float(result) - 2.0) / (1 / 4 * (2 + 1) + 3 / 4 * (2 - 1)) == pytest.approx(1.0, abs=1e-9)


def test_one_liar_puts_the_mean_where_it_wants() -> None:
    """x = n T - sum of the others gives T (Blanchard et al. 2017, Lemma 1)."""
    honest, target = column(1.0, 2.0, 4.0), 1e6
    lie = 4 * target - honest.sum(dim=0, keepdim=True)
    assert aggregate("weighted_mean", torch.cat([honest, lie]), 0).tolist() == [target]
