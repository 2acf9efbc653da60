"""What every rule of the registry promises, rule by rule (clauses 0.1, 0.2, 0.3, 0.5, 0.7, 4.5, 4.6, 4.8, 4.9)."""

import math

import pytest
import torch
from scipy.optimize import nnls  # scipy comes with scikit-learn
from torch import Tensor

from hqde_ref.core.rules import MEASURES, RULES, SYMMETRIES, Bound, Rule, certify, compose, get_rule, ratio_to_bound
from hqde_ref.core.rules.bound import AROUND_A_POINT, Measure
from hqde_ref.core.staged import is_staged
from hqde_ref.errors import ConfigurationError, LayoutError, NotFinite, TooFewContributions
from properties.bounds import BESIDE_KAPPA
from simulator.proven_bounds import PROVEN
from tests.rules_page import PAGE, page
from tests.worst_inputs import Kept, climb, kept_inputs, ratio_of, wanted

EVERY = [pytest.param(rule, id=name) for name, rule in RULES.items()]
COMPOSED = {
    rule.name: rule
    for first, settings in (
        ("nearest_neighbour_mixing", {}),
        ("bucketing", {"size": 2}),
        ("static_clipping", {"limit": 1.5}),
        ("adaptive_clipping", {}),
    )
    for rule in (compose(first, name, **settings) for name in ("coordinate_median", "trimmed_mean", "geometric_median"))
}
BOUNDS = [
    pytest.param(rule, bound, id=f"{name}-{bound.measure}") for name, rule in RULES.items() for bound in rule.bounds
]


def seeded(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def sizes_for(rule: Rule, *counts: int) -> list[tuple[int, int]]:
    """All numbers of rows and of faulty ones among them, up to a minority, that the rule takes."""
    return [(n, f) for n in counts for f in range(1, (n + 1) // 2) if rule.least_contributions(f) <= n]


def having(symmetry: str) -> list[object]:
    """Rules with this symmetry, and compositions of pre-aggregations with rules."""
    every = {**RULES, **COMPOSED}
    return [pytest.param(rule, id=name) for name, rule in every.items() if symmetry in rule.symmetries]


def close(got: Tensor, wanted: Tensor, scale: float = 1.0) -> bool:
    return bool(((got - wanted).abs() <= 1e-9 * scale).all())


@pytest.mark.parametrize("rule", EVERY)
def test_entries_are_whole(rule: Rule) -> None:
    assert rule.symmetries <= SYMMETRIES
    assert RULES[rule.name] is rule
    assert rule.description.endswith(".")
    assert rule.family != "gram" or {"translation", "rotation"} <= rule.symmetries  # a sharded round leans on both
    assert (rule.family == "staged") == is_staged(rule.name)
    assert rule.source


@pytest.mark.parametrize("rule", EVERY)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_results_have_the_layout_of_the_rows_and_rows_stay_as_they_were(rule: Rule, dtype: torch.dtype) -> None:
    rows = seeded(11, 40, dtype=dtype)
    kept = rows.clone()
    result = rule.aggregate(rows, faulty_max=2)
    assert (result.shape, result.dtype, result.device) == (rows[0].shape, dtype, rows.device)
    assert torch.equal(rows, kept)
    assert result.data_ptr() not in {row.data_ptr() for row in rows}
    wide = rule.aggregate(rows.double(), faulty_max=2)
    assert bool(((result.double() - wide).abs() <= 6 * torch.finfo(dtype).eps * wide.abs().clamp_min(1.0)).all())


@pytest.mark.parametrize("rule", having("permutation"))
@pytest.mark.parametrize("length", [5, 30000])
def test_the_order_of_rows_and_their_storage_leave_no_trace(rule: Rule, length: int) -> None:
    rows = seeded(11, length, dtype=torch.float32)
    rows[4] = rows[9]
    wanted = rule.aggregate(rows, faulty_max=2)
    for seed in range(2):
        order = torch.randperm(11, generator=torch.Generator().manual_seed(seed)).tolist()
        assert torch.equal(rule.aggregate([rows[index].clone() for index in order], faulty_max=2), wanted)
        assert torch.equal(rule.aggregate([rows[index] for index in order], faulty_max=2), wanted)


@pytest.mark.parametrize("rule", having("permutation"))
def test_ties_of_scores_are_broken_by_content(rule: Rule) -> None:
    """On the corners of a simplex all rows have equal scores; still the order they come in does not matter."""
    rows = torch.eye(9, dtype=torch.float32)
    wanted = rule.aggregate(rows, faulty_max=1)
    for seed in range(3):
        order = torch.randperm(9, generator=torch.Generator().manual_seed(seed))
        assert torch.equal(rule.aggregate(rows[order], faulty_max=1), wanted)


@pytest.mark.parametrize("rule", having("translation"))
def test_translation_moves_the_result_along(rule: Rule) -> None:
    rows, shift = seeded(11, 6), seeded(6, seed=1) * 100
    moved = rule.aggregate(rows + shift, faulty_max=2)
    assert close(moved, rule.aggregate(rows, faulty_max=2) + shift, 100)


@pytest.mark.parametrize("rule", having("positive_scale"))
@pytest.mark.parametrize("exponent", [1, 100, 150, 199, 200, 201, 210, 300, 480, 600, 1000])
def test_scale_scales_the_result(rule: Rule, exponent: int) -> None:
    """In all of float64's range: products overflow beyond 2**500, and some guard has its limit in between."""
    rows = seeded(11, 6)
    wanted = rule.aggregate(rows, faulty_max=2)
    for scale in (2.0**exponent, 2.0**-exponent):
        assert close(rule.aggregate(rows * scale, faulty_max=2) / scale, wanted), scale


@pytest.mark.parametrize("rule", having("negation"))
@pytest.mark.parametrize("count", [11, 12])
def test_negation_negates_the_result(rule: Rule, count: int) -> None:
    rows = seeded(count, 6)
    assert close(-rule.aggregate(-rows, faulty_max=2), rule.aggregate(rows, faulty_max=2))


@pytest.mark.parametrize("rule", having("rotation"))
def test_rotation_rotates_the_result(rule: Rule) -> None:
    rows = seeded(11, 6)
    turn, _ = torch.linalg.qr(seeded(6, 6, seed=2))
    assert close(rule.aggregate(rows @ turn, faulty_max=2), rule.aggregate(rows, faulty_max=2) @ turn, 10)


@pytest.mark.parametrize("rule", having("coordinate_permutation"))
def test_coordinates_may_be_listed_in_any_order(rule: Rule) -> None:
    rows, order = seeded(11, 6), torch.tensor([3, 1, 5, 0, 4, 2])
    assert close(rule.aggregate(rows[:, order], faulty_max=2), rule.aggregate(rows, faulty_max=2)[order])


@pytest.mark.parametrize("rule", having("diagonal_scale"))
def test_every_coordinate_may_have_a_scale_of_its_own(rule: Rule) -> None:
    rows, scale = seeded(11, 6), torch.tensor([1e-3, 1.0, -2.0, 50.0, 0.5, 7.0], dtype=torch.float64)
    if "negation" not in rule.symmetries:
        scale = scale.abs()
    assert close(rule.aggregate(rows * scale, faulty_max=2), rule.aggregate(rows, faulty_max=2) * scale, 50)


@pytest.mark.parametrize("rule", having("monotone_map"))
@pytest.mark.parametrize("count", [11, 12])
def test_an_increasing_map_maps_the_result(rule: Rule, count: int) -> None:
    rows = seeded(count, 6)
    assert torch.equal(rule.aggregate(rows.exp(), faulty_max=2), rule.aggregate(rows, faulty_max=2).exp())


@pytest.mark.parametrize("rule", having("idempotent"))
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
@pytest.mark.parametrize("length", [7, 40000])
def test_equal_rows_give_that_row_to_the_bit(rule: Rule, dtype: torch.dtype, length: int) -> None:
    row = seeded(length, seed=3, dtype=dtype)
    result = rule.aggregate([row] * 11, faulty_max=2)
    if rule.name == "weighted_mean" and dtype == torch.float64:  # exact within its error bound only
        assert close(result, row, 1e-4)
    else:
        assert torch.equal(result, row)


@pytest.mark.parametrize("rule", having("exact_fit"))
@pytest.mark.parametrize("size", [1e-30, 1.0, 1e30])
def test_equal_honest_rows_give_that_row_to_the_bit(rule: Rule, size: float) -> None:
    row = seeded(9, seed=4, dtype=torch.float32)
    rows = [row] * 9 + list((seeded(2, 9, seed=5) * size).float())
    assert torch.equal(rule.aggregate(rows, faulty_max=2), row)


@pytest.mark.parametrize("rule", having("majority_fit"))
def test_a_majority_of_equal_rows_gives_that_row_to_the_bit(rule: Rule) -> None:
    row = seeded(9, seed=6, dtype=torch.float32)
    rows = [row] * 6 + list(seeded(5, 9, seed=7, dtype=torch.float32) * 50)
    assert torch.equal(rule.aggregate(rows, faulty_max=2), row)


@pytest.mark.parametrize("rule", having("box"))
def test_results_stay_in_the_range_of_all_rows(rule: Rule) -> None:
    for seed in range(5):
        rows = seeded(11, 6, seed=seed) * 10.0 ** (6 * seeded(11, 1, seed=seed + 50))
        result = rule.aggregate(rows, faulty_max=2)
        slack = 1e-9 * rows.abs().max()
        assert bool(((result >= rows.amin(dim=0) - slack) & (result <= rows.amax(dim=0) + slack)).all())


def away_from_hull(point: Tensor, rows: Tensor) -> float:
    """How far the nearest combination of the rows is, with weights of at least 0 and of sum 1, in units of the rows.

    The last coordinate asks for the sum; the point is in the convex hull if nothing is left.
    """
    unit = rows.abs().max()
    table = torch.cat([rows / unit, torch.ones(len(rows), 1, dtype=rows.dtype)], dim=1)
    wanted = torch.cat([point / unit, torch.ones(1, dtype=rows.dtype)])
    return float(nnls(table.T.numpy(), wanted.numpy())[1])


@pytest.mark.parametrize("rule", having("hull"))
def test_results_stay_in_the_convex_hull_of_all_rows(rule: Rule) -> None:
    for faulty in (1, 2):
        for seed in range(10):
            rows = seeded(11, 6, seed=seed)
            rows[:faulty] *= 10.0 ** (seed - 4)
            assert away_from_hull(rule.aggregate(rows, faulty_max=faulty), rows) < 1e-9


@pytest.mark.parametrize("name", ["coordinate_median", "trimmed_mean", "mean_around_median"])
def test_rules_that_go_by_coordinates_leave_the_hull(name: str) -> None:
    """The unit vectors span a simplex; every coordinate's middle is 0, and the sum of the coordinates should be 1."""
    rows = torch.eye(5, dtype=torch.float64)
    result = RULES[name].aggregate(rows, faulty_max=1)
    assert result.tolist() == [0.0] * 5
    assert away_from_hull(result, rows) > 0.4
    assert "hull" not in RULES[name].symmetries


def test_clipping_may_take_a_value_out_of_the_range_of_all_rows() -> None:
    """Of ten rows, four are shortened and three trimmed."""
    rows = torch.tensor([[10.0, 10.0]] * 4 + [[10.0, 0.0]] * 6, dtype=torch.float64)
    assert "box" not in RULES["clipped_trimmed_mean"].symmetries
    assert float(RULES["clipped_trimmed_mean"].aggregate(rows, faulty_max=3)[0]) < 9.5


@pytest.mark.parametrize("rule", having("honest_box"))
@pytest.mark.parametrize("count", [7, 10])
def test_results_stay_in_the_honest_range_of_every_coordinate_exactly(rule: Rule, count: int) -> None:
    faulty = max(f for f in range(count) if rule.least_contributions(f) <= count)
    for seed in range(20):
        rows = seeded(count, 8, seed=seed, dtype=torch.float32)
        honest = rows[faulty:]
        rows[:faulty] *= 10.0 ** (seed - 8)
        result = rule.aggregate(rows, faulty_max=faulty)
        assert bool(((result >= honest.amin(dim=0)) & (result <= honest.amax(dim=0))).all())


@pytest.mark.parametrize("rule", having("monotone"))
def test_raising_a_coordinate_lowers_nothing(rule: Rule) -> None:
    rows = seeded(10, 30)
    raised = rows.clone()
    raised[3] += seeded(30, seed=8).abs()
    assert bool((rule.aggregate(raised, faulty_max=2) >= rule.aggregate(rows, faulty_max=2) - 1e-12).all())


@pytest.mark.parametrize("rule", having("lipschitz"))
def test_small_changes_change_the_result_no_more_than_they_are(rule: Rule) -> None:
    rows = seeded(10, 30)
    changed = rows + 0.1 * (2 * torch.rand(10, 30, generator=torch.Generator().manual_seed(9), dtype=torch.float64) - 1)
    moved = (rule.aggregate(changed, faulty_max=2) - rule.aggregate(rows, faulty_max=2)).abs()
    assert bool((moved <= (changed - rows).abs().amax(dim=0) + 1e-12).all())


def attacks(honest: Tensor, faulty: int) -> list[Tensor]:
    mean, spread = honest.mean(dim=0), honest.std(dim=0)
    far = honest[(honest - mean).norm(dim=1).argmax()]
    return [
        rows.expand(faulty, -1)
        for rows in (
            far[None],
            (mean + 1.5 * spread)[None],
            (mean - 3 * spread)[None],
            (mean + 1e30)[None],
            -10 * mean[None],
            (2 * far - mean)[None],
            mean[None] + torch.eye(1, len(mean), dtype=mean.dtype) * 1e6,
        )
    ]


@pytest.mark.parametrize(("rule", "bound"), BOUNDS)
def test_no_attack_tried_breaks_a_proven_bound(rule: Rule, bound: Bound) -> None:
    worst = 0.0
    for count, faulty in sizes_for(rule, 5, 7, 9, 10, 11):
        for seed in range(4):
            honest = seeded(count - faulty, 3, seed=seed)
            if seed % 2:
                honest[: faulty + 1] += 4.0  # honest rows in two clusters
            points = [honest.mean(dim=0), honest[0], honest[-2:].mean(dim=0), 9 * honest[0]]
            for bad in attacks(honest, faulty):
                rows = torch.cat([honest, bad])
                inputs = [torch.cat([rows, z[None]]) for z in points] if bound.measure in AROUND_A_POINT else [rows]
                worst = max(worst, *(ratio_of(rule, bound, given, faulty) for given in inputs))
    assert 0.0 < worst <= 1.0 + 1e-9


def test_the_judges_constants_are_derived_apart_and_the_same() -> None:
    assert set(PROVEN) == {name for name, rule in RULES.items() if rule.bounds}
    for name, kappa in PROVEN.items():
        for n, f in sizes_for(RULES[name], *range(3, 25)):
            own = RULES[name].kappa
            assert own is not None
            assert kappa(n, f) == pytest.approx(own(n, f), rel=1e-12), (name, n, f)
    for name, (measure, constant) in BESIDE_KAPPA.items():
        bound = next(bound for bound in RULES[name].bounds if bound.measure == measure)
        for n, f in sizes_for(RULES[name], *range(3, 25)):
            assert constant(n, f) == pytest.approx(bound.constant(n, f), rel=1e-12), (name, n, f)


def on_axis(values: list[float]) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)[:, None] * torch.tensor([[0.6, 0.8]], dtype=torch.float64)


def test_either_end_of_an_optimal_segment_is_certified_and_attains_the_constant() -> None:
    """With n even and all rows on a line the rule gives the middle; who gives the end is right, and errs as much."""
    rule, honest = RULES["geometric_median"], on_axis([0.0] * 5 + [1.0] * 2)
    rows, end = torch.cat([honest, on_axis([1.0] * 3)]), on_axis([1.0])[0]
    assert close(rule.aggregate(rows, faulty_max=3), on_axis([0.5])[0])
    assert certify(rule.name, rows, end, faulty_max=3).subgradient_norm == pytest.approx(0, abs=1e-12)
    assert ratio_to_bound(rule.bounds[0], end, honest, faulty=3) == pytest.approx(1.0, abs=1e-9)


@pytest.mark.parametrize("kept", list(kept_inputs()), ids=lambda kept: f"{kept.rule}-{kept.measure}-{kept.count}")
def test_the_worst_inputs_found_are_as_bad_as_they_were(kept: Kept) -> None:
    rule = RULES[kept.rule]
    bound = next(bound for bound in rule.bounds if bound.measure == kept.measure)
    ratio = ratio_of(rule, bound, kept.rows, kept.faulty)
    assert ratio <= min(kept.ratio * (1 + 1e-6), 1 + 1e-9)
    assert ratio >= 0.95 * kept.ratio  # as bad as it was, too: or the rule, the bound or the measure is another one


def test_worst_inputs_are_kept_of_every_bound_and_the_climber_climbs() -> None:
    kept = {(one.rule, one.measure, one.count, one.faulty) for one in kept_inputs()}
    assert kept == {(rule.name, bound.measure, count, faulty) for rule, bound, count, faulty in wanted()}
    rule = RULES["mean_around_median"]
    bound = rule.bounds[0]
    assert climb(rule, bound, 7, 2, steps=0)[1] < climb(rule, bound, 7, 2, steps=60)[1] <= 1.0


@pytest.mark.parametrize(("rule", "bound"), BOUNDS)
def test_the_climber_finds_what_is_tight(rule: Rule, bound: Bound) -> None:
    """So that a bound that is not called so, and far from what was found, is known to be loose."""
    found = max(kept.ratio for kept in kept_inputs() if (kept.rule, kept.measure) == (rule.name, bound.measure))
    assert (found == pytest.approx(1.0, abs=1e-3)) == bound.tight


def test_a_ratio_to_a_bound_says_what_is_compared() -> None:
    """Four honest rows around 0, result (3, 0): by hand."""
    honest = torch.tensor([[1.0, 0], [-1, 0], [0, 2], [0, -2]], dtype=torch.float64)
    result, z = torch.tensor([[3.0, 0], [0, 2]], dtype=torch.float64)
    ratios = {
        measure: ratio_to_bound(Bound(measure=measure, constant=lambda n, f: 10.0 * n + f), result, honest, faulty=1)
        for measure in MEASURES
    }
    constant = 10.0 * 5 + 1
    assert {measure: round(ratio * constant, 9) for measure, ratio in ratios.items()} == {
        "variance": round(9 / 2.5, 9),
        "covariance": round(9 / 2, 9),
        "range": round(3 / 2, 9),
        "diameter": round(3 / 4, 9),
        "radius": round(3 / 2, 9),
        "distances": round(3 / 6, 9),
    }
    around = Bound(measure="radius", constant=lambda n, f: 1.0)
    assert ratio_to_bound(around, result, honest, faulty=1, point=z) == pytest.approx(13**0.5 / 4)


@pytest.mark.parametrize("measure", MEASURES)
def test_a_ratio_to_a_bound_does_not_take_rounding_for_error_nor_nonsense_for_right(measure: Measure) -> None:
    bound = Bound(measure=measure, constant=lambda n, f: 1.0)
    equal = torch.full((7, 3), 0.1)
    assert ratio_to_bound(bound, equal.mean(dim=0), equal, faulty=0) == 0.0
    assert ratio_to_bound(bound, equal[0] + 1e-4, equal, faulty=1) == math.inf
    for wrong in (math.nan, math.inf):
        assert ratio_to_bound(bound, torch.tensor([0.1, wrong, 0.1]), equal, faulty=1) == math.inf
    assert ratio_to_bound(bound, torch.ones(0), torch.ones(4, 0), faulty=1) == 0.0
    rows, result, z = seeded(5, 3), seeded(3, seed=1), seeded(3, seed=2)
    usual = ratio_to_bound(bound, result, rows, faulty=1, point=z)
    for exponent in (-1000, -550, 550, 1000):
        scale = 2.0**exponent
        assert ratio_to_bound(bound, result * scale, rows * scale, faulty=1, point=z * scale) == pytest.approx(usual)
    far = ratio_to_bound(bound, result * 1e170, rows, faulty=1)  # beyond what a float64 holds the square of
    assert far > 1e160


@pytest.mark.parametrize("rule", [rule for rule in EVERY if rule.values[0].bounds])  # type: ignore[union-attr]
def test_without_a_faulty_row_every_bound_holds_of_a_rule(rule: Rule) -> None:
    for dtype in (torch.float16, torch.float32, torch.float64):
        rows = seeded(12, 40, dtype=dtype)
        for bound in rule.bounds:
            assert ratio_to_bound(bound, rule.aggregate(rows, faulty_max=0), rows, faulty=0) <= 1.0, bound.measure


def test_a_ratio_to_a_bound_refuses_what_makes_no_sense() -> None:
    honest, bound = seeded(4, 2), RULES["geometric_median"].bounds[1]
    for result, rows, point, got in (
        (seeded(3), honest, None, r"\(3,\) float64 on cpu and \(4, 2\)"),
        (seeded(2), honest, torch.tensor(1.0), r"and \(4, 2\) float64 on cpu and \(\) float32"),
        (seeded(2), honest, seeded(1), r"and \(4, 2\) float64 on cpu and \(1,\)"),
        ([1.0, 2.0], honest, None, r"list and \(4, 2\)"),
        (seeded(2), list(honest), None, r"\(2,\) float64 on cpu and list"),
        (seeded(2), honest.to("meta"), None, "on meta"),
        (seeded(2).to(torch.complex64), honest, None, "complex64"),
        (seeded(2).to(torch.int32), honest, None, "int32"),
        (seeded(2), honest[:0], None, r"\(0, 2\)"),
    ):
        with pytest.raises(LayoutError, match=rf"wanted dense floating tensors \(d,\), \(h, d\) .* got .*{got}"):
            ratio_to_bound(bound, result, rows, faulty=1, point=point)  # type: ignore[arg-type]
    with pytest.raises(LayoutError, match=r"bound: wanted one of Rule.bounds, got Rule"):
        ratio_to_bound(RULES["krum"], seeded(2), honest, faulty=1)  # type: ignore[arg-type]
    with pytest.raises(TooFewContributions, match="geometric_median with faulty_max=4 needs at least 9"):
        ratio_to_bound(bound, seeded(2), honest, faulty=4)
    for wrong in (-1, 1.5, True, "2"):
        with pytest.raises(ConfigurationError, match="faulty_max of ratio_to_bound must be an integer of at least 0"):
            ratio_to_bound(bound, seeded(2), honest, faulty=wrong)  # type: ignore[arg-type]
    with pytest.raises(NotFinite, match=r"ratio_to_bound was given NaN or infinity in row\(s\) 2"):
        ratio_to_bound(bound, seeded(2), honest / torch.tensor([[1.0], [1], [0], [1]], dtype=torch.float64), faulty=1)
    with pytest.raises(NotFinite, match="the point of ratio_to_bound holds NaN or infinity; measure from"):
        ratio_to_bound(bound, seeded(2), honest, faulty=1, point=torch.full((2,), math.nan, dtype=torch.float64))


@pytest.mark.parametrize("rule", [*EVERY, *(pytest.param(rule, id=name) for name, rule in COMPOSED.items())])
def test_no_constant_is_given_of_fewer_rows_than_a_rule_takes(rule: Rule) -> None:
    for bound in rule.bounds:
        for f in (0, 1, 2, 5):
            least = rule.least_contributions(f)
            assert bound.constant(least, f) >= 0.0
            with pytest.raises(TooFewContributions) as caught:
                bound.constant(least - 1, f)
            assert str(caught.value).startswith(f"{rule.name} ")
        for wrong in (-1, 1.5, True):
            with pytest.raises(ConfigurationError, match="integer of at least 0"):
                bound.constant(20, wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize("rule", EVERY)
def test_the_bound_by_the_variance_comes_first_and_none_twice(rule: Rule) -> None:
    measures = [bound.measure for bound in rule.bounds]
    assert measures[:1] == ["variance"] * bool(measures)
    assert len(set(measures)) == len(measures)


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors:UserWarning")
@pytest.mark.parametrize("rule", EVERY)
def test_bad_input_is_refused_by_name(rule: Rule) -> None:
    rows = seeded(11, 5, dtype=torch.float32)
    for none in ([], rows[:0]):
        sentence = f"^{rule.name} needs at least one contribution whatever faulty_max is, got no rows; pass one row per"
        with pytest.raises(TooFewContributions, match=sentence):
            rule.aggregate(none, faulty_max=2)
    for dtype, what_to_do in (
        (torch.complex64, r"pass torch.view_as_real\(row\).flatten\(\), .*, or row.real"),
        (torch.float8_e5m2, r"convert every row with row.to\(torch.float32\)"),
        (torch.int64, r"aggregate .* by their lower median, hqde_ref.core.combining.lower_median \(clause 0.8\)"),
    ):
        with pytest.raises(LayoutError, match=rf"updates of {rule.name}: .* got {dtype} in row 0; {what_to_do}"):
            rule.aggregate([row.to(dtype) for row in rows], faulty_max=2)
    for none_in_order in (set(rows), dict.fromkeys(rows), dict.fromkeys(rows).keys()):
        sentence = rf"wanted a sequence of rows in an order, got {type(none_in_order).__name__}; p"
        with pytest.raises(LayoutError, match=rf"updates of {rule.name}: {sentence}"):
            rule.aggregate(none_in_order, faulty_max=2)
    for nested, got in (
        (torch.nested.nested_tensor(list(rows)), r"got a nested tensor; pass its parts, tensor.unbind\(\)"),
        ([torch.nested.nested_tensor(list(rows))] * 11, "got a nested tensor in row 0; flatten"),
    ):
        with pytest.raises(LayoutError, match=rf"updates of {rule.name}: .* {got}"):
            rule.aggregate(nested, faulty_max=2)
    with pytest.raises(LayoutError, match="one dtype in all rows"):
        rule.aggregate([*rows, rows[0].double()], faulty_max=1)
    for wrong in (-1, 1.5, True):
        with pytest.raises(ConfigurationError, match="faulty_max"):
            rule.aggregate(rows, faulty_max=wrong)
    if rule.name != "weighted_mean":
        with pytest.raises(TooFewContributions, match=rf"at least {rule.least_contributions(5)} contributions"):
            rule.aggregate(rows[:10], faulty_max=5)
    rows[2, 4], rows[7, 0] = math.inf, math.nan
    with pytest.raises(
        NotFinite, match=rf"^{rule.name} was given NaN or infinity in row\(s\) 2, 7; screen contributions"
    ):
        rule.aggregate(rows, faulty_max=2)


def test_an_unknown_rule_is_answered_with_the_nearest() -> None:
    with pytest.raises(ConfigurationError, match=r"must be one of .* 'geometic_median'; did you mean 'geometric_"):
        get_rule("geometic_median")
    with pytest.raises(ConfigurationError, match=r"see hqde_ref.core.rules.RULES"):
        get_rule("zzz")
    for wrong in (["krum"], {"krum"}, None, 1):  # lists and sets have no hash
        with pytest.raises(ConfigurationError, match=r"^rule must be one of .* got .*"):
            get_rule(wrong)  # type: ignore[arg-type]
        with pytest.raises(ConfigurationError, match=r"^pre-aggregation must be one of .* got .*"):
            compose(wrong, "krum")  # type: ignore[arg-type]
        with pytest.raises(ConfigurationError, match=r"^rule must be one of .* got .*"):
            certify(wrong, seeded(7, 2), seeded(2), faulty_max=1)  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match=r"rule to certify must be one of .* got 'bulyan'"):
        certify("bulyan", seeded(7, 2), seeded(2), faulty_max=1)


@pytest.mark.parametrize("rule", [rule for rule in EVERY if rule.values[0].certify is not None])  # type: ignore[union-attr]
def test_own_results_are_certified_and_wrong_ones_are_not(rule: Rule) -> None:
    rows = seeded(11, 30)
    certificate = certify(rule.name, rows, rule.aggregate(rows, faulty_max=2), faulty_max=2)
    assert certificate.rule == rule.name
    assert (certificate.count == 11) or "rows kept of 11" in certificate.because
    assert certificate.excess <= 1e-9
    assert certify(rule.name, rows, rows.amax(dim=0), faulty_max=2).excess > 0.1


def test_rank_certificates_prove_containment() -> None:
    rows = seeded(9, 20)
    median = certify("coordinate_median", rows, rows.median(dim=0).values, faulty_max=4)
    assert (median.rank_interval, median.excess) == ((5, 5), 0.0)
    assert median.because == (
        "every coordinate lies between ranks 5 and 5 of 9, inside the honest range with 4 faulty rows"
    )
    mean = certify("trimmed_mean", rows, rows.mean(dim=0), faulty_max=4)
    assert mean.rank_interval is not None
    assert mean.rank_interval[0] < 5
    assert "not proven to be inside" in mean.because


def test_krum_certificates_order_the_scores() -> None:
    rows = torch.tensor([[0.0], [1.0], [2.5], [4.5], [50.0]])
    good = certify("krum", rows, rows[1], faulty_max=1)
    assert (good.excess, good.score_order) == (0.0, (1, 2, 0, 3, 4))
    assert good.because == "the output is row 1, of rank 1 by score among 5 with 1 faulty row"
    bad = certify("krum", rows, rows[4], faulty_max=1)
    assert bad.excess > 1000
    assert certify("krum", rows, torch.tensor([0.5]), faulty_max=1).because.startswith("the output is none of the rows")


def test_the_page_of_rules_says_what_the_registry_says() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), "run python -m tests.rules_page"
