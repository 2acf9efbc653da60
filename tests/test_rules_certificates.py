"""``certify`` with a rule's own settings: right with those the output was made with, wrong with others (4.5)."""

import math

import pytest
import torch
from torch import Tensor

from hqde_ref.core.rules import RULES, Rule, certify, compose, get_rule
from hqde_ref.core.rules.settings import settings_of
from hqde_ref.errors import ConfigurationError, LayoutError, NotFinite, TooFewContributions

CERTIFIED = [pytest.param(rule, id=name) for name, rule in RULES.items() if rule.certify is not None]
# Settings that change the result on ``seeded(11, 30)``, two faulty.
UNEQUAL = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0, 10.0, 11.0]
OTHERWISE: list[tuple[str, dict[str, object]]] = [
    ("weighted_mean", {"weights": UNEQUAL}),
    ("trimmed_mean", {"trimmed": 4}),
    ("geometric_median", {"weights": UNEQUAL}),
    ("blockwise_geometric_median", {"blocks": ((0, 10), (10, 30))}),
    ("blockwise_geometric_median", {"weights": UNEQUAL}),
    ("filtered_geometric_median", {"factor": 1.0}),
    ("filtered_geometric_median", {"factor": 1.0, "rejections_max": 1}),
    ("krum", {"neighbours": 2}),
    ("multi_krum", {"neighbours": 2, "selected": 3}),
    ("multi_krum", {"selected": 3}),
]


def seeded(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("rule", CERTIFIED)
def test_a_certificate_takes_what_its_rule_takes(rule: Rule) -> None:
    assert rule.certify is not None
    assert settings_of(rule.certify) == rule.settings


def test_every_setting_of_a_rule_with_a_certificate_is_tried() -> None:
    tried = {(name, setting) for name, settings in OTHERWISE for setting in settings}
    known = {(name, setting) for name, rule in RULES.items() if rule.certify for setting in rule.settings}
    assert known - tried == {("filtered_geometric_median", "floor")}  # which is tried below, where it undoes a factor


@pytest.mark.parametrize(("name", "settings"), OTHERWISE)
def test_an_output_is_certified_with_its_own_settings_only(name: str, settings: dict[str, object]) -> None:
    rows = seeded(11, 30, seed=1)
    output = RULES[name].aggregate(rows, faulty_max=2, **settings)
    assert certify(name, rows, output, faulty_max=2, **settings).excess <= 1e-9
    assert certify(name, rows, output, faulty_max=2).excess > 1e-2
    usual = RULES[name].aggregate(rows, faulty_max=2)
    assert certify(name, rows, usual, faulty_max=2, **settings).excess > 1e-2


def test_a_floor_keeps_what_a_factor_would_reject() -> None:
    rows = seeded(11, 30, seed=1)
    output = RULES["filtered_geometric_median"].aggregate(rows, faulty_max=2, factor=1.0, floor=1e3)
    certificate = certify("filtered_geometric_median", rows, output, faulty_max=2, factor=1.0, floor=1e3)
    assert certificate.excess <= 1e-9
    assert certificate.because.startswith("of the 11 rows kept of 11, the output")
    assert certify("filtered_geometric_median", rows, output, faulty_max=2, factor=1.0).excess > 1e-2


def test_a_trimmed_mean_that_trims_another_number_is_told_apart() -> None:
    """Both lie within the ranks; only the value itself tells."""
    rows = torch.tensor([[0.0], [1.0], [2.0], [7.0], [20.0]])
    said = certify("trimmed_mean", rows, torch.tensor([2.0]), faulty_max=1)
    assert said.rank_interval == (3, 3)
    assert said.because == (
        "every coordinate lies between ranks 3 and 3 of 5, inside the honest range with 1 faulty row, "
        "and is at most 1.33 from the rule's own"
    )
    assert certify("trimmed_mean", rows, torch.tensor([2.0]), faulty_max=1, trimmed=2).excess == 0.0


def test_the_lower_median_is_not_the_midpoint_median() -> None:
    rows = torch.tensor([[0.0], [1.0], [3.0], [9.0]])
    assert certify("lower_coordinate_median", rows, torch.tensor([1.0]), faulty_max=1).excess == 0.0
    assert certify("coordinate_median", rows, torch.tensor([2.0]), faulty_max=1).excess == 0.0
    assert certify("coordinate_median", rows, torch.tensor([1.0]), faulty_max=1).excess == 1.0


def test_a_setting_that_a_rule_does_not_have_is_refused_by_name() -> None:
    rows, output = seeded(11, 3), seeded(3)
    with pytest.raises(
        ConfigurationError, match=r"a setting of krum must be one of neighbours, got 'weights'; see its"
    ):
        certify("krum", rows, output, faulty_max=2, weights=[1.0] * 11)
    with pytest.raises(
        ConfigurationError, match=r"filtered_geometric_median must be one of rejections_max, factor, floor, got 'limit'"
    ):
        certify("filtered_geometric_median", rows, output, faulty_max=2, limit=1)
    with pytest.raises(
        ConfigurationError, match=r"a setting of coordinate_median must be left out \(it has none\), got"
    ):
        certify("coordinate_median", rows, output, faulty_max=2, trimmed=3)
    with pytest.raises(ConfigurationError, match=r"neighbours of krum must be an integer of 2\.\.10, got 11"):
        certify("krum", rows, output, faulty_max=2, neighbours=11)
    with pytest.raises(ConfigurationError, match="trimmed of trimmed_mean must be an integer of at least faulty_max=2"):
        certify("trimmed_mean", rows, output, faulty_max=2, trimmed=1)
    with pytest.raises(TooFewContributions, match="trimmed_mean with trimmed=6 needs at least 13"):
        certify("trimmed_mean", rows, output, faulty_max=2, trimmed=6)


@pytest.mark.parametrize("weight", [5e-324, 1e-320, 1e-200, 1e-100, 1.0, 1e100, 1e200, 1e300])
def test_a_certificate_of_a_geometric_median_sees_only_the_ratios_of_weights(weight: float) -> None:
    rows = torch.randn(11, 5, generator=torch.Generator().manual_seed(2))
    right, wrong = get_rule("geometric_median").aggregate(rows, faulty_max=2), torch.full((5,), 3.0)
    plain = certify("geometric_median", rows, wrong, faulty_max=2)
    judged = certify("geometric_median", rows, wrong, faulty_max=2, weights=[weight] * 11)
    assert judged.excess == pytest.approx(plain.excess, rel=1e-9)
    assert judged.radius_factor is None
    assert judged.gap is not None
    assert judged.gap > 0.0
    assert certify("geometric_median", rows, right, faulty_max=2, weights=[weight] * 11).excess < 1e-6


def test_rows_too_small_to_be_judged_are_not_certified() -> None:
    rows = 1e-310 * torch.randn(11, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    assert certify("geometric_median", rows, rows.amax(dim=0), faulty_max=2).excess > 0.1


def test_a_median_of_equal_rows_is_said_to_equal_them() -> None:
    found = certify("coordinate_median", [torch.ones(5)] * 11, torch.ones(5), faulty_max=2)
    assert found.because == (
        "every coordinate equals those of ranks 1 to 11 of 11, inside the honest range with 2 faulty rows"
    )


def test_rows_without_coordinates_have_a_certificate() -> None:
    assert (
        certify("geometric_median", [torch.zeros(0, dtype=torch.float64)] * 3, torch.zeros(0), faulty_max=0).excess
        == 0.0
    )


def test_an_output_beside_an_optimal_row_by_rounding_is_judged_as_that_row() -> None:
    """One unit in the last place off the optimum, its own pull is back: so that row is judged, and how far it is."""
    rows = seeded(7, 30).to(torch.float32)
    rows[3] = rows[[0, 1, 2, 4, 5, 6]].mean(dim=0)
    beside = rows[3].clone()
    beside[5] = torch.nextafter(beside[5], torch.tensor(math.inf))
    exact, found = (certify("geometric_median", rows, output, faulty_max=2) for output in (rows[3], beside))
    assert (exact.excess, exact.aside) == (0.0, 0.0)
    assert (found.excess, found.radius_factor) == (0.0, exact.radius_factor)
    assert found.aside == float(beside[5].double() - rows[3, 5].double())
    assert found.gap == pytest.approx(7 * found.aside)
    assert found.because.startswith(f"the output, but for {found.aside:.3g} of rounding, is a geometric median")
    farther = rows[3].clone()
    farther[5] += 1e-4
    assert certify("geometric_median", rows, farther, faulty_max=2).excess > 0.1
    blocks = certify("blockwise_geometric_median", rows, beside, faulty_max=2, blocks=((0, 4), (4, 30)))
    assert (blocks.aside, [one.aside for one in blocks.blocks]) == (found.aside, [0.0, found.aside])


@pytest.mark.parametrize("scale", [1e-300, 1e-200, 1.0, 1e200, 1e300])
def test_what_rounding_explains_depends_on_no_scale(scale: float) -> None:
    rows = seeded(7, 30)
    rows[3] = rows[[0, 1, 2, 4, 5, 6]].mean(dim=0)
    rows *= scale
    beside, farther = rows[3].clone(), rows[3].clone()
    beside[5] = torch.nextafter(beside[5], torch.tensor(math.inf, dtype=torch.float64))
    farther[5] *= 1 + 1e-10
    found, off = (certify("geometric_median", rows, output, faulty_max=2) for output in (beside, farther))
    assert 0.0 < found.aside < 1e-15 * scale
    assert found.excess < 1e-9
    assert off.aside == 0.0
    assert off.excess > 0.1


def test_no_radius_is_promised_where_liars_weigh_as_much_as_the_honest() -> None:
    """A share that is 1 but for rounding gave a factor of 6.7e7."""
    rows = seeded(1, 4)
    for seed in range(50):
        assert certify("geometric_median", rows, seeded(4, seed=seed + 1), faulty_max=0).radius_factor is None
        line = seeded(3, 1, seed=seed) * seeded(1, 5)
        low, high = line[line[:, 0].argsort()][:2]
        share = 0.1 + 0.016 * seed
        between = share * low + (1 - share) * high
        assert certify("geometric_median", line, between, faulty_max=1).radius_factor is None


@pytest.mark.parametrize("weights", [[1e200] * 8 + [1e-200], [1e-300] + [1e300] * 8])
def test_a_wrong_output_has_a_gap_whatever_the_weights(weights: list[float]) -> None:
    rows = seeded(9, 6)
    wrong = certify("geometric_median", rows, rows.mean(dim=0) + 5, faulty_max=0, weights=weights)
    assert wrong.excess > 0.9
    assert wrong.gap is not None
    assert wrong.gap > max(weights)
    right = RULES["geometric_median"].aggregate(rows, faulty_max=0, weights=weights)
    certificate = certify("geometric_median", rows, right, faulty_max=0, weights=weights)
    assert certificate.gap is not None
    assert certificate.gap < 1e-9 * max(weights)


@pytest.mark.parametrize("far", [1e100, 1e150, 1e170])
def test_liars_far_off_do_not_make_all_honest_scores_equal(far: float) -> None:
    """Half of all distances are the liars': in units of those, squares of honest ones vanish."""
    rows = seeded(10, 4)
    for liar, coordinate, sign in ((7, 0, 1), (8, 1, 1), (9, 2, -1)):
        rows[liar] = 0.0
        rows[liar, coordinate] = sign * far
    right = RULES["krum"].aggregate(rows, faulty_max=3)
    excesses = [certify("krum", rows, row, faulty_max=3).excess for row in rows]
    assert sum(excess == 0.0 for excess in excesses) == 1
    assert certify("krum", rows, right, faulty_max=3).excess == 0.0
    assert all(excess == math.inf or excess > 1e100 for excess in excesses[7:])


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors:UserWarning")
@pytest.mark.parametrize("rule", [name for name, entry in RULES.items() if entry.certify is not None])
def test_an_output_that_is_no_dense_row_is_refused_by_name(rule: str) -> None:
    rows = seeded(11, 4)
    for output, got in (
        (rows[0].to_sparse(), "a torch.sparse_coo one"),
        (torch.nested.nested_tensor([rows[0]]), "a nested tensor"),
    ):
        with pytest.raises(LayoutError, match=rf"output of .*: wanted a dense row, got {got}; call to_dense\(\) first"):
            certify(rule, rows, output, faulty_max=2)
    with pytest.raises(
        NotFinite, match=r"^the output of .* holds NaN or infinity; do not use it: no rule makes that of"
    ):
        certify(rule, rows, torch.full_like(rows[0], math.nan), faulty_max=2)


def test_compositions_and_rules_themselves_are_told_that_only_names_are_certified() -> None:
    composed = compose("bucketing", "krum", size=2)
    rows = seeded(11, 4)
    for given, sentence in (
        (
            composed,
            "compositions have no certificate: certify the rule by itself, on the rows that the pre-aggregation",
        ),
        (composed.name, "got 'bucketing . krum'; compositions have no certificate"),
        (get_rule("krum"), "pass its name, 'krum'"),
    ):
        with pytest.raises(ConfigurationError, match=f"rule to certify must be a name in .*{sentence}"):
            certify(given, rows, rows[0], faulty_max=1)  # type: ignore[arg-type]


def test_ranks_beside_all_rows_are_explained() -> None:
    rows = seeded(11, 4)
    low, high = rows.amin(dim=0) - 1.0, rows.amax(dim=0) + 1.0
    both = torch.cat([low[:2], high[2:]])
    for output, said in (
        (high, "between ranks 11 and 12 of 11 (12: above all rows), not proven"),
        (low, "between ranks 0 and 1 of 11 (0: below all rows), not proven"),
        (both, "between ranks 0 and 12 of 11 (0: below all rows, 12: above all rows), not proven"),
    ):
        assert said in certify("coordinate_median", rows, output, faulty_max=2).because


def test_a_trimmed_mean_names_the_setting_that_asks_for_more_rows() -> None:
    sentence = "^trimmed_mean with trimmed=6 needs at least 13 contributions, got 11; add workers or lower trimmed\\.$"
    with pytest.raises(TooFewContributions, match=sentence):
        RULES["trimmed_mean"].aggregate(seeded(11, 4), faulty_max=2, trimmed=6)
    with pytest.raises(
        TooFewContributions, match=r"^trimmed_mean with faulty_max=6 needs at least 13 contributions, got 11"
    ):
        RULES["trimmed_mean"].aggregate(seeded(11, 4), faulty_max=6)


@pytest.mark.parametrize("scale", [1e-200, 1.0, 1e200])
def test_multi_krums_certificate_tells_by_how_much_the_cut_was_clear(scale: float) -> None:
    places = (0.0, 1.0, 2.5, 4.0, 8.0, 16.0, 32.0)
    rows = torch.tensor(places, dtype=torch.float64)[:, None] * scale
    right = certify("multi_krum", rows, rows[:4].mean(dim=0), faulty_max=1, selected=4)
    scores = [sum(sorted((a - b) ** 2 for b in places)[1:5]) for a in places]
    assert right.score_order == (2, 3, 1, 0, 4, 5, 6) == tuple(sorted(range(7), key=scores.__getitem__))
    assert right.excess <= 1e-15 * scale
    margin = sorted(scores)[4] / sorted(scores)[3] - 1.0
    assert f"of which the next is {100 * margin:.3g} % higher" in right.because
    wrong = certify("multi_krum", rows, rows[1:5].mean(dim=0), faulty_max=1, selected=4)
    assert wrong.excess == pytest.approx(2.0 * scale)
    everybody = certify("multi_krum", rows, rows.mean(dim=0), faulty_max=1, selected=7)
    assert everybody.excess <= 1e-14 * scale
    assert "the next" not in everybody.because


def test_multi_krums_certificate_breaks_ties_as_the_rule_does() -> None:
    rows = torch.tensor([[3.0], [-3.0], [1.0], [-1.0], [0.0], [0.0], [50.0]])
    for order in ([0, 1, 2, 3, 4, 5, 6], [6, 5, 4, 3, 2, 1, 0], [1, 0, 3, 2, 6, 5, 4]):
        for selected in range(1, 8):
            output = RULES["multi_krum"].aggregate(rows[order], faulty_max=1, selected=selected)
            found = certify("multi_krum", rows[order], output, faulty_max=1, selected=selected)
            assert found.excess <= 1e-6, (order, selected)


@pytest.mark.parametrize("selected", range(1, 7))
def test_multi_krums_certificate_breaks_ties_by_content_where_totals_tie_too(selected: int) -> None:
    rows = torch.tensor([[3.0], [-3.0], [1.0], [-1.0], [2.0], [-2.0]])
    for order in ([0, 1, 2, 3, 4, 5], [5, 4, 3, 2, 1, 0], [1, 0, 3, 2, 5, 4]):
        output = RULES["multi_krum"].aggregate(rows[order], faulty_max=1, selected=selected)
        found = certify("multi_krum", rows[order], output, faulty_max=1, selected=selected)
        assert found.excess <= 1e-6, order
        assert found.margin is None if selected == 6 else found.margin == 0.0 or selected % 2 == 0


def test_near_ties_are_told_by_one_comparison() -> None:
    """Corners of a rotated cross, a common offset: scores are equal but for the last digits of float64."""
    for seed in range(40):
        generator = torch.Generator().manual_seed(seed)
        axes, _ = torch.linalg.qr(torch.randn(3, 3, generator=generator, dtype=torch.float64))
        rows = torch.cat([axes, -axes]) + torch.randn(3, generator=generator, dtype=torch.float64)
        own = certify("krum", rows, RULES["krum"].aggregate(rows, faulty_max=1), faulty_max=1)
        assert 0.0 <= own.excess < 1e-11
        for row in rows:
            assert 0.0 <= certify("krum", rows, row, faulty_max=1).excess < 1e-11
        for selected in (1, 3, 5):
            output = RULES["multi_krum"].aggregate(rows, faulty_max=1, selected=selected)
            found = certify("multi_krum", rows, output, faulty_max=1, selected=selected)
            assert found.margin is not None
            assert 0.0 <= found.margin < 1e-11  # so an excess decides nothing
            assert "higher" in found.because


def test_a_margin_is_of_the_scores_on_both_sides_of_the_cut() -> None:
    rows = torch.tensor([[0.0], [1.0], [2.5], [4.5], [50.0]], dtype=torch.float64)
    found = certify("multi_krum", rows, rows[:3].mean(dim=0), faulty_max=1, selected=3)
    scores = sorted([1 + 6.25, 1 + 2.25, 4 + 2.25, 4 + 12.25, 45.5**2 + 47.5**2])
    assert found.margin == pytest.approx(scores[3] / scores[2] - 1.0)
    assert certify("multi_krum", rows, rows.mean(dim=0), faulty_max=1, selected=5).margin is None
    assert certify("krum", rows, rows[1], faulty_max=1).margin is None


@pytest.mark.parametrize("rule", CERTIFIED)
@pytest.mark.parametrize("rows_of", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("wide", [1e3, 1e100, 1e160, 1e200, 1e300])
def test_no_output_far_from_all_rows_is_certified(rule: Rule, rows_of: torch.dtype, wide: float) -> None:
    """Beyond 1e154 squared distances to an output of float64 overflowed, and no pull was left of them."""
    rows = seeded(7, 5).to(rows_of)
    found = certify(rule.name, rows, torch.full((5,), wide, dtype=torch.float64), faulty_max=1)
    assert found.excess > 0.9
    assert found.radius_factor is None


def test_multi_krums_certificate_refuses_what_the_rule_refuses() -> None:
    rows = seeded(7, 3)
    for selected in (0, 8, True, 2.0):
        with pytest.raises(ConfigurationError, match=r"selected of multi_krum must be an integer of 1\.\.7"):
            certify("multi_krum", rows, rows[0], faulty_max=1, selected=selected)
    with pytest.raises(TooFewContributions, match=r"multi_krum with faulty_max=3 needs at least 9"):
        certify("multi_krum", rows, rows[0], faulty_max=3)


def test_a_means_certificate_says_how_far_off_the_output_is_and_who_can_lead_it() -> None:
    rows, weights = torch.tensor([[0.0, 1.0], [3.0, 1.0], [6.0, 4.0]]), [1.0, 1.0, 2.0]
    right, off = torch.tensor([3.75, 2.5]), torch.tensor([3.75, 2.25])
    found = certify("weighted_mean", rows, right, faulty_max=0, weights=weights)
    assert (found.excess, found.because) == (
        0.0,
        "the output is at most 0 in any coordinate from the mean, of rows that are all trusted",
    )
    wrong = certify("weighted_mean", rows, off, faulty_max=1, weights=weights)
    assert wrong.excess == 0.25
    assert wrong.because.endswith("at most 0.25 in any coordinate from the mean, which any of them can lead anywhere")


@pytest.mark.parametrize("name", [name for name, rule in RULES.items() if "weights" in rule.settings])
@pytest.mark.parametrize("weights", [[1e-300, 1e300, 1e300], [5e-324] * 3, [5e307] * 3])
def test_a_certificate_of_extreme_weights_is_of_their_ratios(name: str, weights: list[float]) -> None:
    rows = seeded(3, 8)
    output = RULES[name].aggregate(rows, faulty_max=0, weights=weights)
    assert certify(name, rows, output, faulty_max=0, weights=weights).excess < 1e-9
    assert certify(name, rows, output + 1.0, faulty_max=0, weights=weights).excess > 0.1


@pytest.mark.parametrize("rule", CERTIFIED)
@pytest.mark.parametrize("exponent", [-1073, -1030, -950, 900, 1020, 1023])
def test_own_results_are_certified_to_the_ends_of_float64(rule: Rule, exponent: int) -> None:
    """Differences overflowed, distances and their squares vanished, and Krum's certificate crashed."""
    rows = (2.0 * torch.rand(9, 40, generator=torch.Generator().manual_seed(3), dtype=torch.float64) - 1.0).mul_(
        2.0**30
    )
    rows = rows.trunc_() * 2.0**-30 if exponent > 0 else rows.trunc_()
    rows = rows * 2.0 ** (exponent - (exponent < -1000)) * (2.0 if exponent < -1000 else 1.0)
    output = rule.aggregate(rows, faulty_max=2)
    top = float(rows.abs().max())
    lengthy = rule.name in (
        "weighted_mean",
        "coordinate_median",
        "lower_coordinate_median",
        "trimmed_mean",
        "multi_krum",
    )
    found = certify(rule.name, rows, output, faulty_max=2)
    assert found.excess <= 1e-8 * (top if lengthy else 1.0)
    wrong = certify(rule.name, rows, rows.amax(dim=0), faulty_max=2)
    assert wrong.excess > 0.1 * (top if lengthy else 1.0)
    assert "nan" not in found.because + wrong.because


@pytest.mark.parametrize("name", ["krum", "multi_krum"])
@pytest.mark.parametrize(("near", "far"), [(1e-170, 1.0), (1e-200, 1.0), (1e-300, 1e300)])
def test_scores_are_ordered_whatever_lies_between_them(name: str, near: float, far: float) -> None:
    """Squares of the far rows overflowed in the unit of the near ones, and were all alike."""
    places = [0.0, 1.0, 3.0, 7.0]
    rows = torch.tensor([*(near * x for x in places), far, -far, 4.0 * far, 9.0 * far], dtype=torch.float64)[:, None]
    found = certify(name, rows, rows[1], faulty_max=1)
    # Five neighbours each: all of the near ones count a far one, so that the sum over all rows decides among those.
    assert found.score_order is not None
    assert found.score_order[4:] == (4, 5, 6, 7)
    assert "nan" not in found.because
    off = certify("multi_krum", rows, rows[:6].mean(dim=0), faulty_max=1, selected=6)
    assert off.excess <= 1e-15 * far
    assert "next is" in off.because
    assert "inf" not in off.because


def test_rows_of_float32_meet_an_output_beyond_them() -> None:
    rows = seeded(9, 5).float()
    far = certify("geometric_median", rows, torch.full((5,), 1e300, dtype=torch.float64), faulty_max=2)
    assert far.excess == pytest.approx(1.0)
    assert far.gap == pytest.approx(9e300 * math.sqrt(5.0))
    assert certify("geometric_median", rows, torch.full((5,), 1e-300, dtype=torch.float64), faulty_max=2).excess > 0.1


@pytest.mark.parametrize("rule", CERTIFIED)
def test_a_certificate_names_its_own_rule_and_takes_rows_from_a_generator(rule: Rule) -> None:
    rows = seeded(7, 3)
    output = rule.aggregate(rows, faulty_max=1)
    assert certify(rule.name, (row for row in rows), output, faulty_max=1) == certify(  # type: ignore[arg-type]
        rule.name, rows, output, faulty_max=1
    )
    for wrong, got in (
        (output[:-1], r"got \(2,\) torch.float64 on cpu"),
        (output.to(torch.float8_e4m3fn), r"got \(3,\) torch.float8_e4m3fn on cpu"),
        (output.numpy(), "got ndarray"),
    ):
        with pytest.raises(LayoutError, match=f"^output of {rule.name}: wanted a .*{got}"):
            certify(rule.name, rows, wrong, faulty_max=1)  # type: ignore[arg-type]
