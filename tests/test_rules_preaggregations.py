"""Pre-aggregations by name, and what holds of them before a rule (clauses 0.7, 4.5, 4.8, 4.9)."""

import math
import re

import pytest
import torch
from torch import Tensor

from hqde_ref.core.kernels.median_sweeps import SWEEP_ROWS
from hqde_ref.core.rules import (
    PREAGGREGATIONS,
    RULES,
    SYMMETRIES,
    Rule,
    certify,
    compose,
    get_preaggregation,
    get_rule,
)
from hqde_ref.core.rules.bucketing import average_buckets
from hqde_ref.errors import ConfigurationError, LayoutError, NotFinite, TooFewContributions
from tests.test_claims import HAIR, SIZES, column, kappa_reached, mirrored
from tests.test_rules_registry import COMPOSED, attacks, close, seeded
from tests.worst_inputs import climb, ratio_of

FIRST: dict[str, dict[str, object]] = {
    "nearest_neighbour_mixing": {},
    "bucketing": {"size": 2},
    "static_clipping": {"limit": 1.5},
    "adaptive_clipping": {},
}
BOUNDED = [pytest.param(rule, id=name) for name, rule in COMPOSED.items() if rule.kappa is not None]


@pytest.mark.parametrize("name", PREAGGREGATIONS)
def test_entries_are_whole(name: str) -> None:
    entry = get_preaggregation(name)
    assert entry.name == name
    assert entry.symmetries <= SYMMETRIES
    assert entry.description.endswith(".")
    assert entry.source
    assert (entry.kappa is None) == entry.bound.startswith("none proven")


@pytest.mark.parametrize(
    ("first", "rule", "together"),
    [
        ("nearest_neighbour_mixing", "trimmed_mean", "mixed_trimmed_mean"),
        ("nearest_neighbour_mixing", "geometric_median", "mixed_geometric_median"),
        ("nearest_neighbour_mixing", "krum", "mixed_krum"),
        ("adaptive_clipping", "trimmed_mean", "clipped_trimmed_mean"),
    ],
)
def test_compositions_are_the_rules_that_rounds_run(first: str, rule: str, together: str) -> None:
    composed, known = compose(first, rule), RULES[together]
    rows = seeded(11, 6)
    rows[:2] += 3.0
    assert close(composed.aggregate(rows, faulty_max=2), known.aggregate(rows, faulty_max=2))
    assert (composed.symmetries, composed.family) == (known.symmetries, known.family)
    for f in (1, 2, 3):
        assert composed.least_contributions(f) == known.least_contributions(f)
        assert composed.kappa is not None
        assert known.kappa is not None
        assert composed.kappa(11, f) == known.kappa(11, f)


def test_settings_go_to_whom_they_belong() -> None:
    rows = seeded(11, 6)
    both = compose(
        "bucketing", compose("static_clipping", "geometric_median", limit=1.0), size=2, order=range(10, -1, -1)
    )
    assert both.settings == ("weights",)
    assert both.name == "bucketing + static_clipping + geometric_median"
    result = both.aggregate(rows, faulty_max=2, weights=[1.0, 2.0, 1.0, 1.0, 1.0, 3.0])
    buckets = average_buckets(rows, size=2, order=range(10, -1, -1))
    shortened = [bucket / max(1.0, float(bucket.norm())) for bucket in buckets]
    wanted = RULES["geometric_median"].aggregate(shortened, faulty_max=2, weights=[1.0, 2.0, 1.0, 1.0, 1.0, 3.0])
    assert close(result, wanted)


def test_what_does_not_fit_is_refused_by_name() -> None:
    with pytest.raises(
        ConfigurationError, match=r"pre-aggregation must be one of .* 'bucketting'; did you mean 'bucketing'"
    ):
        compose("bucketting", "krum")
    with pytest.raises(ConfigurationError, match=r"rule must be one of .* got 'krumm'; did you mean 'krum'"):
        compose("bucketing", "krumm", size=2)
    with pytest.raises(
        ConfigurationError, match="settings of static_clipping must be given: limit, got 'none'; it cannot"
    ):
        compose("static_clipping", "krum")
    with pytest.raises(ConfigurationError, match=r"a setting of adaptive_clipping must be left out \(it has none\)"):
        compose("adaptive_clipping", "krum", limit=1.0)
    composed = compose("bucketing", "trimmed_mean", size=2)
    with pytest.raises(ConfigurationError, match="a setting of trimmed_mean must be one of trimmed, got 'neighbours'"):
        composed.aggregate(seeded(11, 3), faulty_max=1, neighbours=3)
    assert composed.least_contributions(3) == 13
    with pytest.raises(TooFewContributions, match=r"^bucketing \+ trimmed_mean with .*=3 needs at least 13 .*, got 12"):
        composed.aggregate(seeded(12, 3), faulty_max=3)
    assert composed.aggregate(seeded(13, 3), faulty_max=3).shape == (3,)


@pytest.mark.parametrize(("first", "settings"), FIRST.items())
@pytest.mark.parametrize("after", ["krum", "trimmed_mean", "weighted_mean"])
def test_rows_that_do_not_fit_are_refused_by_the_name_of_the_composition(
    first: str, settings: dict[str, object], after: str
) -> None:
    rule = compose(first, compose("bucketing", after, size=1), **settings)
    name = rf"^{first} \+ bucketing \+ {after}"
    least = rule.least_contributions(3)
    if least > 1:
        with pytest.raises(TooFewContributions, match=rf"{name} with faulty_max=3 needs at least {least} "):
            rule.aggregate(seeded(least - 1, 4), faulty_max=3)
    rows = seeded(max(2, least), 4)
    assert rule.aggregate(rows, faulty_max=3).shape == (4,)
    with pytest.raises(TooFewContributions, match=rf"{name} needs at least one contribution .* got no rows"):
        rule.aggregate([], faulty_max=3)
    with pytest.raises(ConfigurationError, match=rf"faulty_max of {name[1:]} must be an integer of at least 0, got -1"):
        rule.aggregate(rows, faulty_max=-1)
    rows[-1, 2] = math.nan
    with pytest.raises(NotFinite, match=rf"{name} was given NaN or infinity in row\(s\) {len(rows) - 1};"):
        rule.aggregate(rows, faulty_max=3)


def near_the_greatest(dtype: torch.dtype, length: int) -> Tensor:
    """Eleven rows whose differences are beyond the dtype; a fifth of the coordinates is of ordinary size."""
    rows = 2 * torch.rand(11, length, generator=torch.Generator().manual_seed(0), dtype=torch.float64) - 1
    rows[3], rows[4] = 1.0, -1.0
    rows = rows * torch.finfo(dtype).max
    rows[:, ::5] = seeded(11, len(range(0, length, 5)))
    return rows.to(dtype)


AT_THE_LIMIT = {
    **RULES,
    **{rule.name: rule for first in FIRST for rule in (compose(first, "krum", **FIRST[first]),)},
    **COMPOSED,
    "short": compose("static_clipping", "trimmed_mean", limit=1e300),
}


@pytest.mark.parametrize("rule", [pytest.param(rule, id=name) for name, rule in AT_THE_LIMIT.items()])
@pytest.mark.parametrize(
    ("dtype", "length"),
    [(torch.float16, 6), (torch.bfloat16, 6), (torch.float32, 6), (torch.float32, 30000), (torch.float64, 6)],
)
def test_rows_near_the_greatest_numbers_give_what_smaller_ones_give(
    rule: Rule, dtype: torch.dtype, length: int
) -> None:
    rows = near_the_greatest(dtype, length)
    result = rule.aggregate(rows, faulty_max=1)
    assert bool(torch.isfinite(result).all())
    if "positive_scale" not in rule.symmetries:
        return
    scale = 2.0**-100
    wanted = rule.aggregate(rows.double() * scale, faulty_max=1)
    slack = 64 * torch.finfo(dtype).eps * torch.finfo(dtype).max * scale
    assert bool(((result.double() * scale - wanted).abs() <= slack).all())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_mixing_the_greatest_numbers_costs_other_coordinates_no_digit(dtype: torch.dtype) -> None:
    rows = near_the_greatest(dtype, 40)
    small = rows.clone()
    small[:, [place for place in range(40) if place % 5]] *= 2.0**-40
    mix = get_preaggregation("nearest_neighbour_mixing").prepare
    for got, wanted in zip(mix(rows, faulty_max=2), mix(small, faulty_max=2), strict=True):
        assert torch.allclose(got[::5], wanted[::5], rtol=0.0, atol=4 * torch.finfo(dtype).eps)


def test_rows_whose_lengths_are_beyond_float64_are_shortened() -> None:
    rows = torch.full((3, 4), 1.7e308, dtype=torch.float64)
    rows[0, 1:], rows[1, 1:] = 0.0, 0.0
    short = get_preaggregation("adaptive_clipping").prepare(rows, faulty_max=1)
    assert torch.stack(short)[:, 0].tolist() == pytest.approx([1.7e308, 1.7e308, 0.85e308])
    short = get_preaggregation("static_clipping").prepare(rows, faulty_max=1, limit=1e308)
    assert torch.stack(short)[:, 0].tolist() == pytest.approx([1e308, 1e308, 0.5e308])


_BY_COORDINATES = {"coordinate_median", "lower_coordinate_median", "trimmed_mean", "mean_around_median"}


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
@pytest.mark.parametrize(("count", "length"), [(11, 0), (11, 5), (SWEEP_ROWS, 5)])
def test_rows_without_data_give_a_row_without_data_or_are_refused_by_name(
    dtype: torch.dtype, count: int, length: int
) -> None:
    rows = [torch.empty(length, dtype=dtype, device="meta") for _ in range(count)]
    composed = {rule.name: rule for rule in (compose(first, "krum", **FIRST[first]) for first in FIRST)}
    for name, rule in {**RULES, **composed, **COMPOSED}.items():
        if name in _BY_COORDINATES:
            result = rule.aggregate(rows, faulty_max=1)
            assert (result.shape, result.dtype, result.is_meta) == ((length,), dtype, True)
        else:
            with pytest.raises(LayoutError, match=refused(name)):
                rule.aggregate(rows, faulty_max=1)
        if rule.certify is not None:
            with pytest.raises(LayoutError, match=refused(name)):
                certify(name, rows, rows[0], faulty_max=1)
    for first, settings in FIRST.items():
        with pytest.raises(LayoutError, match=refused(first)):
            get_preaggregation(first).prepare(rows, faulty_max=1, **settings)


def refused(name: str) -> str:
    sentence = f"updates of {name}: wanted rows with data, got rows on the meta device; use real rows."
    return f"^{re.escape(sentence)}$"


@pytest.mark.parametrize("size", [0, -1, 1.5, "2", True, None])
def test_a_size_of_buckets_that_is_no_number_of_rows_is_refused(size: object) -> None:
    rule = compose("bucketing", "krum", size=size)
    with pytest.raises(ConfigurationError, match="size of bucketing must be an integer of at least 1, got"):
        rule.least_contributions(1)
    with pytest.raises(ConfigurationError, match="size of bucketing must be an integer of at least 1, got"):
        rule.aggregate(seeded(9, 3), faulty_max=1)


def test_how_many_rows_a_composition_needs_is_found_at_once_however_many() -> None:
    rule = compose("bucketing", compose("nearest_neighbour_mixing", "krum"), size=3)
    assert [rule.least_contributions(f) for f in (0, 1, 10**12)] == [7, 13, 3 * (2 * 10**12 + 2) + 1]
    with pytest.raises(TooFewContributions, match="needs at least 6000000000007 contributions, got 9"):
        rule.aggregate(seeded(9, 3), faulty_max=10**12)


@pytest.mark.parametrize("rule", BOUNDED)
def test_no_attack_tried_breaks_the_constant_that_follows(rule: Rule) -> None:
    worst = 0.0
    for count in (7, 9, 10, 11, 12):
        for faulty in (f for f in range(1, 5) if rule.least_contributions(f) <= count):
            for seed in range(4):
                honest = seeded(count - faulty, 3, seed=seed)
                if seed % 2:
                    honest[: faulty + 1] += 4.0
                for bad in attacks(honest, faulty):
                    worst = max(worst, ratio_of(rule, rule.bounds[0], torch.cat([honest, bad]), faulty))
            worst = max(worst, climb(rule, rule.bounds[0], count, faulty, steps=30)[1])
    assert 0.0 < worst <= 1.0 + 1e-9


def spoilt(buckets: int, faulty: int, size: int, *, trimmed: int) -> Tensor:
    """``faulty`` spoilt buckets whose honest rows stand together, opposite to where the rule errs from the others.

    What the others' rows lie apart is what makes all of Cauchy's inequality: see ``bounds.bucketed_kappa``.
    """
    others, together = buckets - faulty, buckets - faulty - trimmed
    mean, spread = together / others, (together / others) * (trimmed / others)
    k, h, m = trimmed / together, buckets * size - faulty, size * others
    # V' : D^2 as Cauchy wants them, sqrt(k) a / D = k / m : (h - m) / (m h) with a = sqrt(V').
    away = (spread * k) ** 0.5 * ((h - m) / h) / k
    place = mean - away * h / (h - m) if h > m else 0.0
    honest = [0.0] * (trimmed * size) + [1.0] * (together * size) + [place] * (faulty * (size - 1))
    return column(*honest, *[1e6] * faulty)


@pytest.mark.parametrize(("buckets", "faulty", "size"), [(5, 2, 2), (7, 2, 3), (7, 3, 2), (10, 3, 4), (9, 1, 1)])
def test_bucketing_attains_its_constant(buckets: int, faulty: int, size: int) -> None:
    rows = spoilt(buckets, faulty, size, trimmed=faulty)
    honest = len(rows) - faulty
    clean = (buckets - faulty) * size
    order = list(range(clean))
    for place in range(faulty):  # each liar with its share of the rows that stand opposite
        order += [honest + place, *range(clean + place * (size - 1), clean + (place + 1) * (size - 1))]
    rule = compose("bucketing", "trimmed_mean", size=size, order=order)
    assert ratio_of(rule, rule.bounds[0], rows, faulty) == pytest.approx(1.0, abs=1e-9)


@pytest.mark.parametrize(("count", "faulty", "size"), [(12, 1, 3), (11, 1, 3), (11, 2, 2), (10, 1, 4), (9, 1, 1)])
def test_the_bound_of_bucketing_in_words_is_the_one_in_numbers(count: int, faulty: int, size: int) -> None:
    words = get_preaggregation("bucketing").bound
    even, uneven = re.findall("rows: (.*) if size divides n, else (.*), r = n - size .b - 1. being", words)[0]
    b = math.ceil(count / size)
    names = {"h": count - faulty, "b": b, "f": faulty, "size": size, "r": count - size * (b - 1)}
    names["k"] = RULES["trimmed_mean"].kappa(b, faulty)  # type: ignore[misc, assignment]
    formula = re.sub(r"(\w) \(", r"\1 * (", even if count % size == 0 else uneven)
    kappa = compose("bucketing", "trimmed_mean", size=size).kappa
    assert kappa is not None
    assert kappa(count, faulty) == pytest.approx(eval(formula, {}, names))


@pytest.mark.parametrize(("count", "faulty"), SIZES)
def test_a_rules_own_constant_does_not_hold_after_mixing(count: int, faulty: int) -> None:
    """Who forgot what mixing does to a bound would be found out: four times k is reached."""
    rows = mirrored(count, faulty)
    reached = kappa_reached(
        compose("nearest_neighbour_mixing", "trimmed_mean").aggregate(rows, faulty_max=faulty), rows[:-faulty]
    )
    own = RULES["trimmed_mean"].kappa
    assert own is not None
    assert reached / own(count, faulty) == pytest.approx(4.0, abs=4 * HAIR**0.5)


def test_static_clipping_keeps_a_bound_only_while_the_honest_are_short() -> None:
    rows = column(2.0, 2.0, 2.0, 2.0, 50.0)
    near = compose("static_clipping", "trimmed_mean", limit=3.0)
    assert near.kappa is None
    assert near.aggregate(rows, faulty_max=1).tolist() == [2.0]
    assert compose("static_clipping", "trimmed_mean", limit=1.0).aggregate(rows, faulty_max=1).tolist() == [1.0]


@pytest.mark.parametrize(
    ("first", "rule", "settings", "count", "faulty"),
    [
        ("bucketing", "geometric_median", {"size": 2}, 24, 7),
        ("adaptive_clipping", "geometric_median", {}, 24, 24),
        ("nearest_neighbour_mixing", "geometric_median", {}, 24, 12),
        ("nearest_neighbour_mixing", "krum", {}, 24, 12),
        ("bucketing", "geometric_median", {"size": 5}, 24, 3),
    ],
)
def test_no_bound_is_given_where_the_condition_does_not_hold(
    first: str, rule: str, settings: dict[str, int], count: int, faulty: int
) -> None:
    kappa = compose(first, rule, **settings).kappa
    assert kappa is not None
    with pytest.raises(TooFewContributions, match=rf"{first} \+ {rule} with faulty_max={faulty} needs at least \d+"):
        kappa(count, faulty)
    with pytest.raises(ConfigurationError, match=r"integer of at least 0, got -1"):
        kappa(count, -1)


@pytest.mark.parametrize("limit", ["1", None, True, math.nan, -1.0])
def test_a_limit_that_is_no_length_is_refused(limit: object) -> None:
    rows = [torch.ones(3)] * 5
    with pytest.raises(ConfigurationError, match="finite and at least 0"):
        compose("static_clipping", "geometric_median", limit=limit).aggregate(rows, faulty_max=1)


def test_settings_of_other_types_are_refused_by_name() -> None:
    rows = [torch.ones(3)] * 7
    with pytest.raises(ConfigurationError, match="radius of centred_clipping"):
        get_rule("centred_clipping").aggregate(rows, faulty_max=2, radius="1")
    with pytest.raises(LayoutError, match="reference of centred_clipping: wanted a torch tensor, got list"):
        get_rule("centred_clipping").aggregate(rows, faulty_max=2, reference=[0.0] * 3)
    with pytest.raises(ConfigurationError, match="factor of filtered_geometric_median"):
        get_rule("filtered_geometric_median").aggregate(rows, faulty_max=2, factor="2")


def test_a_composition_takes_a_bucket_at_least_and_what_a_backend_is_for() -> None:
    rule = compose("bucketing", "weighted_mean", size=3)
    assert rule.least_contributions(0) == 3
    with pytest.raises(TooFewContributions, match=r"bucketing \+ weighted_mean with faulty_max=0 needs at least 3"):
        rule.aggregate(seeded(2, 4), faulty_max=0)
    trimmed, rows = compose("bucketing", "trimmed_mean", size=2), seeded(9, 4)
    assert torch.equal(trimmed.aggregate(rows, faulty_max=1, backend="eager"), trimmed.aggregate(rows, faulty_max=1))
    with pytest.raises(ConfigurationError, match="a setting of geometric_median must be one of weights, got 'backend'"):
        compose("bucketing", "geometric_median", size=2).aggregate(rows, faulty_max=1, backend="eager")


@pytest.mark.parametrize("order", [[0.0, 1.0, 2.0], [None] * 3, 5, [0, 1], [0, 1, 1]])
def test_an_order_that_is_no_permutation_is_refused(order: object) -> None:
    with pytest.raises(ConfigurationError, match=r"order of bucketing must be a permutation of 0\.\.2, got "):
        compose("bucketing", "weighted_mean", size=2, order=order).aggregate(seeded(3, 2), faulty_max=0)


@pytest.mark.parametrize("blocks", [5, [(0,)], [(0, 2.0), (2.0, 4)], "ab", [(0, 3)], [(1, 4)]])
def test_blocks_that_do_not_cover_the_row_are_refused(blocks: object) -> None:
    with pytest.raises(LayoutError, match=r"ranges \(pairs of integers\) that cover 0\.\.4 in order, got "):
        RULES["blockwise_geometric_median"].aggregate(seeded(3, 4), faulty_max=0, blocks=blocks)


@pytest.mark.parametrize("blocks", [None, [(0, 4)], [(0, 2), (2, 4)]])
def test_a_bad_row_is_named_by_the_rule_that_was_asked_for(blocks: object) -> None:
    rows = seeded(3, 4)
    rows[1, 3] = math.nan
    with pytest.raises(NotFinite, match=r"blockwise_geometric_median was given NaN or infinity in row\(s\) 1"):
        RULES["blockwise_geometric_median"].aggregate(rows, faulty_max=0, blocks=blocks)
