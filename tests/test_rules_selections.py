"""Rules that choose, mix or shorten rows, against brute force over plain NumPy (clauses 4.3, 4.4, 4.5)."""

import itertools
import math
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy
import pytest
import torch
from torch import Tensor

from hqde_ref.core.kernels.compiled import Backend
from hqde_ref.core.kernels.gram import content_distances
from hqde_ref.core.kernels.means import average_rows
from hqde_ref.core.kernels.selections import minimum_diameter_subset, round_scores
from hqde_ref.core.rules import certify, get_rule
from hqde_ref.core.rules.bucketing import average_buckets
from hqde_ref.core.rules.bulyan import bulyan
from hqde_ref.core.rules.centred_clipping import centred_clipping
from hqde_ref.core.rules.certifying import certify_krum
from hqde_ref.core.rules.clipping import clip_adaptively, clip_rows, clipped_trimmed_mean
from hqde_ref.core.rules.filtered_geometric_median import choose_outliers, filtered_geometric_median
from hqde_ref.core.rules.geometric_median import geometric_median
from hqde_ref.core.rules.krum import choose_krum_rows, krum, multi_krum
from hqde_ref.core.rules.mean_around_median import mean_around_median
from hqde_ref.core.rules.minimum_diameter import minimum_diameter_mean
from hqde_ref.core.rules.nearest_neighbour_mixing import (
    mix_nearest_neighbours,
    mixed_geometric_median,
    mixed_krum,
    mixed_trimmed_mean,
)
from hqde_ref.core.rules.spectral import covariance_filter, smallest_spread_mean
from hqde_ref.core.rules.trimmed_mean import trimmed_mean
from hqde_ref.core.rules.weighted_mean import fast_weighted_mean
from hqde_ref.errors import ConfigurationError, LayoutError, NotFinite, TooFewContributions

Rule = Callable[..., Any]


def seeded(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def near(got: Tensor, wanted: object, tolerance: float = 1e-9) -> bool:
    return bool(numpy.allclose(got.double().numpy(), numpy.asarray(wanted), rtol=tolerance, atol=tolerance))


def slow_squares(rows: Tensor) -> numpy.ndarray:
    x = rows.double().numpy()
    return numpy.array([[((a - b) ** 2).sum() for b in x] for a in x])


def slow_krum_order(squares: numpy.ndarray, neighbours: int) -> list[int]:
    scores = [sorted(numpy.delete(row, i))[:neighbours] for i, row in enumerate(squares)]
    return sorted(range(len(squares)), key=lambda i: (round(sum(scores[i]), 9), squares[i].sum()))


@pytest.mark.parametrize("neighbours", [None, 3, 8])
@pytest.mark.parametrize("offset", [0.0, 1.0])
def test_krum_chooses_as_the_definition_does(neighbours: int | None, offset: float) -> None:
    for seed in range(10):
        rows = offset + (1e-3 if offset else 1.0) * seeded(11, 20, seed=seed)
        rows[8:] += 1e-3
        order = slow_krum_order(slow_squares(rows), 11 - 3 - 2 if neighbours is None else neighbours)
        assert torch.equal(krum(rows, faulty_max=3, neighbours=neighbours), rows[order[0]])
        got = choose_krum_rows(rows, faulty_max=3, selected=8, neighbours=neighbours)
        assert list(got) == order[:8]
        assert near(multi_krum(rows, faulty_max=3, neighbours=neighbours), rows[order[:8]].mean(dim=0))


def test_multi_krum_picks_exactly_where_raw_inner_products_err() -> None:
    """float32 rows with offset 1 and scatter 1e-3: |a|^2 + |b|^2 - 2ab has no digit left, centred rows do."""
    rows = (1.0 + 1e-3 * seeded(32, 20000, seed=3)).float()
    order = slow_krum_order(slow_squares(rows), 32 - 6 - 2)
    assert set(choose_krum_rows(rows, faulty_max=6, selected=26)) == set(order[:26])
    assert set(choose_krum_rows(list(rows), faulty_max=6, selected=26)) == set(order[:26])


def test_krum_settings_are_checked() -> None:
    rows = seeded(9, 3)
    with pytest.raises(TooFewContributions, match="krum with faulty_max=4 needs at least 11 contributions, got 9"):
        krum(rows, faulty_max=4)
    with pytest.raises(ConfigurationError, match=r"neighbours of krum must be an integer of 2..8, got 1; take n - f"):
        krum(rows, faulty_max=2, neighbours=1)
    with pytest.raises(ConfigurationError, match=r"selected of multi_krum must be an integer of 1..9, got 10"):
        multi_krum(rows, faulty_max=2, selected=10)


@pytest.mark.parametrize("count", [5, 8, 10])
def test_the_minimum_diameter_is_the_least_over_all_subsets(count: int) -> None:
    for seed in range(15):
        rows = torch.randint(-4, 5, (count, 2), generator=torch.Generator().manual_seed(seed)).double()
        faulty = (count - 1) // 2
        squares = torch.from_numpy(slow_squares(rows))
        kept, diameter = minimum_diameter_subset(squares, size=count - faulty)
        wanted = min(squares[list(c)][:, list(c)].max() for c in itertools.combinations(range(count), count - faulty))
        assert len(kept) == count - faulty
        assert diameter == float(wanted) == float(squares[list(kept)][:, list(kept)].max())
    rows = seeded(count, 4)
    best = min(itertools.combinations(range(count), count - 1), key=lambda c: slow_squares(rows[list(c)]).max())
    assert near(minimum_diameter_mean(rows, faulty_max=1), rows[list(best)].mean(dim=0))


def test_the_minimum_diameter_bound_is_attained() -> None:
    """Two honest groups at distance 1, the faulty rows a hair less beyond: error 2f / (n - f) of the diameter."""
    rows = torch.tensor([0.0] * 2 + [1.0] * 5 + [2.0 - 2.0**-24] * 2, dtype=torch.float64)[:, None]
    error = float(minimum_diameter_mean(rows, faulty_max=2) - rows[:7].mean())
    assert error / (2 * 2 / 7 * 1.0) == pytest.approx(1.0, abs=1e-6)
    squares = torch.from_numpy(slow_squares(rows))
    kept, diameter = minimum_diameter_subset(squares, size=7)
    assert kept == (2, 3, 4, 5, 6, 7, 8)
    assert diameter == pytest.approx(float(squares[2:, 2:].max()), rel=1e-11)


def test_rounding_makes_ties_of_nearly_equal_scores() -> None:
    values = torch.tensor([1.0, 1.0 + 2.0**-50, 1.0 + 2.0**-30, 0.0, 1e300, 3e-310], dtype=torch.float64)
    rounded = round_scores(values)
    assert rounded[0] == rounded[1] != rounded[2]
    assert rounded[3] == 0.0
    assert torch.allclose(rounded, values, rtol=1e-11, atol=0)


def slow_bulyan(rows: Tensor, faulty: int) -> numpy.ndarray:
    left, chosen = list(range(len(rows))), []
    while len(chosen) < len(rows) - 2 * faulty:
        order = slow_krum_order(slow_squares(rows[left]), max(1, len(left) - faulty - 2))
        chosen.append(left.pop(order[0]))
    x = rows[chosen].numpy()
    middle, keep = numpy.median(x, axis=0), len(rows) - 4 * faulty
    return numpy.take_along_axis(x, numpy.argsort(abs(x - middle), axis=0)[:keep], axis=0).mean(axis=0)


def test_bulyan_is_the_definition() -> None:
    for seed in range(8):
        rows = seeded(11, 5, seed=seed)
        rows[:2] += 3
        assert near(bulyan(rows, faulty_max=2), slow_bulyan(rows, 2))


def test_bulyan_leaves_the_honest_range() -> None:
    """The claim that it stays inside is false: the median 0 of -10, -10, 0, 0, 9 with three kept averages 0, 0, 9."""
    from hqde_ref.core.kernels.nearest import nearest_mean

    column = torch.tensor([-10.0, -10.0, 0.0, 0.0, 9.0])[:, None]
    assert float(nearest_mean(list(column), keep=3, rule="t")) == 3.0


def slow_spread(x: numpy.ndarray) -> float:
    return float(numpy.linalg.eigvalsh(numpy.atleast_2d(numpy.cov(x.T, bias=True)))[-1])


def test_the_smallest_spread_is_the_least_over_all_subsets() -> None:
    for seed in range(5):
        rows = seeded(8, 3, seed=seed)
        rows[:2] += 2
        best = min(itertools.combinations(range(8), 6), key=lambda c: slow_spread(rows[list(c)].numpy()))
        assert near(smallest_spread_mean(rows, faulty_max=2), rows[list(best)].mean(dim=0))
    with pytest.raises(ConfigurationError, match="number of subsets that smallest_spread_mean tries must be at most"):
        smallest_spread_mean(seeded(40, 2), faulty_max=10)


def slow_filter(rows: Tensor, faulty: int) -> numpy.ndarray:
    x, w, best, least = rows.numpy(), numpy.ones(len(rows)), None, math.inf
    while w.sum() > len(rows) - 2 * faulty:
        mean = (w[:, None] * x).sum(axis=0) / w.sum()
        values, vectors = numpy.linalg.eigh((w[:, None] * (x - mean)).T @ (x - mean) / w.sum())
        if values[-1] < least:
            best, least = mean, values[-1]
        reach = ((x - mean) @ vectors[:, -1]) ** 2
        w = w * numpy.where(reach >= reach[w > 0].max(), 0.0, 1 - reach / reach[w > 0].max())
    assert best is not None
    return best


def test_the_covariance_filter_is_the_definition_and_removes_outliers_of_any_size() -> None:
    for seed in range(5):
        rows = seeded(12, 4, seed=seed)
        rows[:3] += 3
        assert near(covariance_filter(rows, faulty_max=3), slow_filter(rows, 3), 1e-7)
    rows = seeded(12, 4)
    rows[0], rows[1] = 1e30, -1e12
    assert float((covariance_filter(rows, faulty_max=3) - rows[2:].mean(dim=0)).norm()) < 3.0


def slow_mix(rows: Tensor, faulty: int) -> numpy.ndarray:
    keep = len(rows) - faulty
    return numpy.stack(
        [rows.numpy()[numpy.argsort(line, kind="stable")[:keep]].mean(axis=0) for line in slow_squares(rows)]
    )


@pytest.mark.parametrize("length", [4, 9000])
def test_mixing_and_its_chains_are_the_rules_on_the_mixed_rows(length: int) -> None:
    rows = 1.0 + seeded(10, length, seed=5)
    rows[7:] += 2
    mixed = torch.from_numpy(slow_mix(rows, 3))
    got = mix_nearest_neighbours(rows, faulty_max=3)
    assert near(torch.stack(got), mixed)
    assert near(mixed_trimmed_mean(rows, faulty_max=3), trimmed_mean(mixed, faulty_max=3))
    assert near(mixed_geometric_median(rows, faulty_max=3), geometric_median(mixed, faulty_max=3), 1e-7)
    assert near(mixed_krum(rows, faulty_max=3), krum(mixed, faulty_max=3))


def test_mixing_keeps_digits_beside_outliers_of_any_size() -> None:
    rows = (1.0 + 1e-3 * seeded(10, 6000, seed=6)).float()
    wanted = torch.from_numpy(slow_mix(rows.double()[:8], 0))
    rows[8], rows[9] = 1e30, -1e12
    for got in mix_nearest_neighbours(rows, faulty_max=2)[:8]:
        assert float((got.double() - wanted[0]).abs().max()) < 1.5e-7


def slow_clipping(rows: Tensor, start: numpy.ndarray, radius: float, steps: int) -> numpy.ndarray:
    v = start.copy()
    for _ in range(steps):
        v = v + numpy.mean([(x - v) * min(1.0, radius / numpy.linalg.norm(x - v)) for x in rows.numpy()], axis=0)
    return v


@pytest.mark.parametrize("steps", [1, 5])
def test_centred_clipping_is_the_definition(steps: int) -> None:
    rows, start = seeded(9, 6, seed=7), seeded(6, seed=8)
    rows[0] *= 1e6
    got = centred_clipping(rows, faulty_max=2, reference=start, radius=1.7, steps=steps)
    assert near(got, slow_clipping(rows, start.numpy(), 1.7, steps), 1e-8)
    middle = numpy.median(rows.numpy(), axis=0)
    radius = sorted(numpy.linalg.norm(rows.numpy() - middle, axis=1))[4]
    assert near(centred_clipping(rows, faulty_max=2, steps=steps), slow_clipping(rows, middle, radius, steps), 1e-8)


def test_the_centred_clipping_bound_is_attained() -> None:
    """|F - mean| <= (f / n) (|mean - v| + tau) + (1 / n) sum of honest excesses: all on one line, ratio 1.000."""
    rows = torch.tensor([[2.0], [2.0], [2.0], [-100.0]], dtype=torch.float64)
    got = centred_clipping(rows, faulty_max=1, reference=torch.zeros(1, dtype=torch.float64), radius=1.0)
    assert abs(float(got) - 2.0) == pytest.approx(1 / 4 * (2.0 + 1.0) + 3 / 4 * (2.0 - 1.0))


def test_centred_clipping_settings_are_checked() -> None:
    rows = seeded(5, 3)
    with pytest.raises(ConfigurationError, match=r"radius of centred_clipping must be finite .* got -1\.0"):
        centred_clipping(rows, faulty_max=1, radius=-1.0)
    with pytest.raises(ConfigurationError, match="steps of centred_clipping must be an integer of at least 1, got 0"):
        centred_clipping(rows, faulty_max=1, steps=0)
    with pytest.raises(LayoutError, match=r"reference of centred_clipping: wanted \(3,\) torch.float64"):
        centred_clipping(rows, faulty_max=1, reference=torch.zeros(3))
    with pytest.raises(
        LayoutError, match=r"reference of centred_clipping: wanted a dense row, got a torch.sparse_coo one"
    ):
        centred_clipping(rows, faulty_max=1, reference=rows[0].to_sparse())
    with pytest.raises(LayoutError, match=r"got \(3,\) torch.float64 on meta; start from a row of the same layout"):
        centred_clipping(rows, faulty_max=1, reference=rows[0].to("meta"))
    with pytest.raises(
        NotFinite, match=r"^the reference of centred_clipping holds NaN or infinity; start from a finite row"
    ):
        centred_clipping(rows, faulty_max=1, reference=torch.full_like(rows[0], math.nan))


def test_buckets_are_means_of_the_rows_named() -> None:
    rows, order = seeded(7, 5), [3, 1, 0, 6, 2, 5, 4]
    got = average_buckets(rows, size=3, order=order)
    wanted = [rows[[3, 1, 0]].mean(dim=0), rows[[6, 2, 5]].mean(dim=0), rows[4]]
    assert near(torch.stack(got), torch.stack(wanted))
    within = average_buckets(rows, size=3, order=[0, 3, 1, 2, 5, 6, 4])
    assert all(torch.equal(a, b) for a, b in zip(got, within, strict=True))
    with pytest.raises(ConfigurationError, match=r"order of bucketing must be a permutation of 0..6"):
        average_buckets(rows, size=3, order=[0, 0, 1, 2, 3, 4, 5])
    with pytest.raises(ConfigurationError, match=r"size of bucketing must be an integer of 1..7, got 0"):
        average_buckets(rows, size=0, order=order)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
def test_clipping_shortens_long_rows_and_leaves_the_others(dtype: torch.dtype) -> None:
    rows = seeded(6, 50, dtype=dtype) * torch.tensor([0.1, 1, 1, 1, 10, 100], dtype=dtype)[:, None]
    clipped = clip_rows(rows, limit=3.0)
    norms = [float(row.double().norm()) for row in clipped]
    assert torch.equal(clipped[0], rows[0])
    assert all(norm == pytest.approx(3.0, rel=2 * torch.finfo(dtype).eps) for norm in norms[1:])
    adaptive = clip_adaptively(rows, faulty_max=2)  # floor(2 * 2 * 4 / 6) = 2 rows are shortened
    third = sorted(float(row.double().norm()) for row in rows)[3]
    assert [float(row.double().norm()) for row in adaptive[4:]] == pytest.approx([third] * 2, rel=2e-3)
    assert all(torch.equal(a, b) for a, b in zip(adaptive[:4], rows[:4], strict=True))


@pytest.mark.parametrize("size", [1e-30, 1e30])
def test_clipping_works_at_every_scale(size: float) -> None:
    rows = (seeded(3, 40) * size).float()
    assert [float(row.double().norm()) for row in clip_rows(rows, limit=size)] == pytest.approx([size] * 3, rel=1e-6)
    with pytest.raises(ConfigurationError, match="limit of static_clipping must be finite and at least 0, got nan"):
        clip_rows(rows, limit=math.nan)
    with pytest.raises(NotFinite, match=r"static_clipping was given NaN or infinity in row\(s\) 0"):
        clip_rows([rows[0] / 0], limit=1.0)


def test_outliers_are_those_far_out_as_a_whole() -> None:
    rows = seeded(10, 300, seed=9)
    rows[2] += 3.0
    rows[6, 0] = 1e6
    screening = choose_outliers(rows, rejections_max=3)
    assert screening.kept == (0, 1, 3, 4, 5, 7, 8, 9)
    centre = geometric_median(rows, faulty_max=3)
    assert numpy.allclose(screening.scores, (rows - centre).norm(dim=1).numpy(), rtol=1e-9)
    assert screening.limit == pytest.approx(3 * sorted(screening.scores)[4], rel=1e-9)


def test_never_more_than_allowed_are_rejected_and_the_nearest_stay() -> None:
    rows = torch.cat([1e-6 * seeded(6, 4), torch.arange(1, 5, dtype=torch.float64)[:, None].expand(4, 4)])
    assert choose_outliers(rows, rejections_max=4).kept == (0, 1, 2, 3, 4, 5)
    assert choose_outliers(rows, rejections_max=3).kept == (0, 1, 2, 3, 4, 5, 6)
    assert choose_outliers(rows, rejections_max=0).kept == tuple(range(10))
    assert choose_outliers(rows, rejections_max=4, floor=4.5).kept == (0, 1, 2, 3, 4, 5, 6, 7)


@pytest.mark.parametrize("size", [1e-30, 1.0, 1e30])
def test_identical_rows_score_nothing_and_are_all_kept(size: float) -> None:
    row = (seeded(50) * size).float()
    screening = choose_outliers([row] * 7, rejections_max=2)
    assert screening.kept == tuple(range(7))
    assert screening.scores == (0.0,) * 7
    beside = choose_outliers([row] * 6 + [row * 2], rejections_max=2)
    assert beside.kept == tuple(range(6))
    assert beside.scores[:6] == (0.0,) * 6
    assert beside.scores[6] == pytest.approx(float(row.double().norm()), rel=1e-6)


@pytest.mark.parametrize("length", [6, 30000])
def test_a_far_row_scores_above_all_others(length: int) -> None:
    for seed in range(10):
        rows = seeded(10, length, seed=seed)
        rows[3] += 10.0 ** (seed + 1)
        scores = choose_outliers(rows.float(), rejections_max=3).scores
        assert max(range(10), key=scores.__getitem__) == 3
        assert all(map(math.isfinite, scores))


def test_scores_do_not_depend_on_order() -> None:
    rows = seeded(9, 40000, dtype=torch.float32)
    order = torch.randperm(9, generator=torch.Generator().manual_seed(1)).tolist()
    there, back = choose_outliers(rows, rejections_max=2), choose_outliers(rows[order], rejections_max=2)
    assert [there.scores[index] for index in order] == list(back.scores)


@pytest.mark.parametrize("length", [5, 30000])
def test_the_filtered_median_is_the_median_of_the_rows_kept(length: int) -> None:
    for seed in range(4):
        rows = seeded(10, length, seed=seed)
        rows[:2] *= 1e4
        kept = choose_outliers(rows, rejections_max=3).kept
        wanted = geometric_median([rows[index] for index in kept], faulty_max=0)
        assert near(filtered_geometric_median(rows, faulty_max=3), wanted, 1e-8)


def test_a_majority_of_equal_rows_leaves_a_limit_of_nothing() -> None:
    rows = torch.tensor([[1.0, 0.0]] * 5 + [[-1.0, 0.0]] * 4, dtype=torch.float64)
    screening = choose_outliers(rows, rejections_max=4, factor=1.0)
    assert (screening.kept, screening.limit) == ((0, 1, 2, 3, 4), 0.0)


def test_no_more_may_be_rejected_than_may_be_faulty_for_the_bound_would_not_hold() -> None:
    """Of four rows one lies, next to the one in the middle: rejecting two leaves the liar half of the weight."""
    rows = torch.tensor([[0.0, 0.0], [-4.0, 1.0], [-4.0, -1.0], [1.0, 0.0]], dtype=torch.float64)
    rule, honest = get_rule("filtered_geometric_median"), rows[:3]
    bound = rule.kappa(4, 1) * float(((honest - honest.mean(dim=0)) ** 2).sum()) / 3  # type: ignore[misc]
    kept = choose_outliers(rows, rejections_max=2).kept
    assert kept == (0, 3)
    result = get_rule("geometric_median").aggregate(rows[list(kept)], faulty_max=0)
    assert float(((result - honest.mean(dim=0)) ** 2).sum()) > 1.1 * bound
    result = rule.aggregate(rows, faulty_max=1)
    assert float(((result - honest.mean(dim=0)) ** 2).sum()) <= bound
    for most in (2, -1, True, 1.0, "1"):
        sentence = r"rejections_max of filtered_geometric_median must be an integer of 0..faulty_max=1, got .*; reject"
        with pytest.raises(ConfigurationError, match=sentence):
            rule.aggregate(rows, faulty_max=1, rejections_max=most)
        with pytest.raises(ConfigurationError, match=sentence):
            certify("filtered_geometric_median", rows, rows[0], faulty_max=1, rejections_max=most)
    assert rule.aggregate(rows, faulty_max=1, rejections_max=0).shape == (2,)


def test_filter_settings_are_checked() -> None:
    rows = seeded(9, 3)
    with pytest.raises(TooFewContributions, match="filtered_geometric_median with faulty_max=3 needs at least 10"):
        filtered_geometric_median(rows, faulty_max=3)
    with pytest.raises(ConfigurationError, match=r"rejections_max of filtered_geometric_median must be an integer"):
        choose_outliers(rows, rejections_max=9)
    with pytest.raises(ConfigurationError, match="factor of filtered_geometric_median must be finite and at least 1"):
        choose_outliers(rows, rejections_max=2, factor=0.5)
    with pytest.raises(ConfigurationError, match="floor of filtered_geometric_median must be finite and at least 0"):
        choose_outliers(rows, rejections_max=2, floor=-1.0)


def test_rows_next_to_each_other_far_from_the_centre_keep_their_distance() -> None:
    for seed in range(10):
        rows = seeded(11, 40_000, seed=seed, dtype=torch.float32)
        rows[1] = rows[0] + 1e-4 * seeded(40_000, seed=seed + 50, dtype=torch.float32)
        rows[3] = rows[2] + 2e-4 * seeded(40_000, seed=seed + 90, dtype=torch.float32)
        chosen = choose_krum_rows(rows, faulty_max=1, selected=2, neighbours=1)
        assert set(chosen) == {0, 1}
        order, far = content_distances(list(rows.unbind(0)), rule="test", kept=len(rows))
        wanted = torch.cdist(rows.double(), rows.double(), compute_mode="donot_use_mm_for_euclid_dist")
        wanted = wanted[list(order)][:, list(order)]
        assert torch.allclose(far / far.max(), wanted / wanted.max(), rtol=1e-3)


def test_more_than_half_equal_rows_need_not_be_krums_choice() -> None:
    rows = [torch.tensor([0.0])] * 5 + [torch.tensor([1.0])] + [torch.tensor([10.0])] * 3
    assert krum(rows, faulty_max=1) == 1.0


def test_krums_certificate_scores_at_every_scale_and_checks_the_neighbours() -> None:
    rows = seeded(11, 6)
    best, worst = (
        choose_krum_rows(rows, faulty_max=2, selected=11)[0],
        choose_krum_rows(rows, faulty_max=2, selected=11)[-1],
    )
    for scale in (1e-200, 1.0, 1e200):
        scaled = rows * scale
        assert certify_krum(scaled, scaled[best], faulty_max=2).excess == 0.0
        assert certify_krum(scaled, scaled[worst], faulty_max=2).excess > 0.1
    for neighbours in (0, -3, 11):
        with pytest.raises(ConfigurationError, match=r"neighbours of krum must be an integer of 2\.\.10"):
            certify_krum(rows, rows[0], faulty_max=2, neighbours=neighbours)


@pytest.mark.parametrize("backend", ["eager", "compiled"])
def test_means_of_the_greatest_numbers_do_not_overflow(backend: Backend) -> None:
    rows = [torch.tensor([value]) for value in (-1.0, 2e38, 3e38, 3.2e38, 3.3e38)]
    assert near(trimmed_mean(rows, faulty_max=1, backend=backend) / 1e38, [8.2 / 3], tolerance=1e-6)
    assert near(mean_around_median(rows, faulty_max=1) / 1e38, [11.5 / 4], tolerance=1e-6)
    apart = [torch.tensor([value]) for value in (3e38, -3e38, 3e38, -3e38, 1e38)]
    assert near(multi_krum(apart, faulty_max=0) / 1e38, [0.2], tolerance=1e-6)
    for count in (6, 10):
        full = torch.full((count, 3), torch.finfo(torch.float32).max)
        assert torch.allclose(fast_weighted_mean(full), full[0])  # an ulp less is right, infinity is not


def test_subsets_are_tried_a_few_at_a_time_or_refused() -> None:
    rows = seeded(60, 5)
    assert smallest_spread_mean(rows, faulty_max=1).shape == (5,)
    with pytest.raises(
        ConfigurationError, match=r"smallest_spread_mean tries must be at most 10 of 999 rows, got 1000"
    ):
        smallest_spread_mean(seeded(1000, 2), faulty_max=1)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_clipped_rows_of_16_bits_are_rounded_once(dtype: torch.dtype) -> None:
    rows = seeded(9, 500, dtype=dtype) * torch.tensor([1.0] * 7 + [30.0, 50.0], dtype=dtype)[:, None]
    wanted = clipped_trimmed_mean(rows.double(), faulty_max=2)
    got = clipped_trimmed_mean(rows, faulty_max=2).double()
    assert bool(((got - wanted).abs() <= 0.51 * torch.finfo(dtype).eps * wanted.abs().clamp_min(1e-3) * 2).all())


def test_settings_beyond_all_rows_are_only_large() -> None:
    rows = 1e-30 * seeded(7, 4)
    assert choose_outliers(rows, rejections_max=2, floor=1e300).kept == tuple(range(7))
    assert near(centred_clipping(rows, faulty_max=1, radius=1e300) / 1e-30, rows.mean(dim=0) / 1e-30, tolerance=1e-6)


@pytest.mark.parametrize("rule", [krum, multi_krum, bulyan, filtered_geometric_median, mixed_krum])
@pytest.mark.parametrize("faulty_max", ["1", None, 1.0, True, -1])
def test_a_number_of_faulty_rows_that_is_none_is_refused_by_name(rule: Rule, faulty_max: object) -> None:
    with pytest.raises(ConfigurationError, match=f"faulty_max of {rule.__name__} must be an integer of at least 0"):
        rule(seeded(11, 3), faulty_max=faulty_max)


@pytest.mark.parametrize("updates", [None, 3])
def test_what_is_no_collection_of_rows_is_refused_by_name(updates: object) -> None:
    with pytest.raises(LayoutError, match=r"updates of krum: wanted an \(n, d\) tensor or a sequence"):
        krum(updates, faulty_max=1)  # type: ignore[arg-type]
    with pytest.raises(LayoutError, match="wanted dense rows"):
        krum([row.to_sparse() for row in seeded(5, 3)], faulty_max=1)


# One honest row far out and a liar farther: what takes n - f rows must see which of the two lies nearer.
FAR_HONEST = [
    (1e-30, 1.5e29, -1.1e30, torch.float32),
    (1.0, 1e61, -1.1e150, torch.float64),
    (1e-200, 1.0, -1e200, torch.float64),
]


@pytest.mark.parametrize(("near", "honest", "liar", "dtype"), FAR_HONEST)
@pytest.mark.parametrize(
    "name", ["krum", "multi_krum", "minimum_diameter_mean", "smallest_spread_mean", "bulyan", "mixed_geometric_median"]
)
def test_bounds_hold_where_an_honest_row_is_far_out(
    name: str, near: float, honest: float, liar: float, dtype: torch.dtype
) -> None:
    """Rows beyond 2**200 times the median used to count as about as far as each other."""
    close = torch.tensor([1.0, 1.01, 1.02, 1.04, 1.05], dtype=torch.float64) * near
    rows = torch.cat([close, torch.tensor([honest, liar], dtype=torch.float64)])[:, None].to(dtype)
    rule = get_rule(name)
    assert rule.kappa is not None
    result = rule.aggregate(rows, faulty_max=1).double() / honest
    trusted = rows[:6].double() / honest
    mean = trusted.mean(dim=0)
    variance = float((trusted - mean).square().sum(dim=1).mean())
    assert float((result - mean).square().sum()) <= rule.kappa(7, 1) * variance * (1.0 + 1e-6)


@pytest.mark.parametrize("count", [2, 3, 7, 24, 64, 65, 200])
@pytest.mark.parametrize(("offset", "scatter"), [(0.0, 1.0), (1.0, 1e-3), (1.0, 1e-6)])
def test_the_mean_of_selected_rows_keeps_the_digits_of_rows_near_to_each_other(
    count: int, offset: float, scatter: float
) -> None:
    """ceil(log2(n)) units in the last place, as ``average_rows`` says; a running mean loses n / 2 of them."""
    generator = torch.Generator().manual_seed(count)
    rows = (offset + scatter * torch.randn(count, 70_000, generator=generator, dtype=torch.float64)).float()
    off = (average_rows(rows.unbind(0)).double() - rows.double().mean(dim=0)).abs()
    units = torch.finfo(torch.float32).eps * rows.double().abs().amax(dim=0)
    assert (off <= math.ceil(math.log2(count)) * units).all()
    if offset:
        assert float(off.mean()) <= 0.5 * float(units.mean())
    half = rows[:16].half()
    assert torch.equal(average_rows(half.unbind(0)), average_rows(half.float().unbind(0)).half())


def test_a_few_quanta_more_in_half_of_the_rows_are_not_lost() -> None:
    """Of 15 quanta in 32 of 64 rows a running mean keeps 0, be it beside 1 or among the least numbers."""
    for base, quantum in ((1.0, 2.0**-23), (0.0, 2.0**-149)):
        rows = torch.full((64, 3), base)
        rows[32:] += 15.0 * quantum
        found = (average_rows(rows.unbind(0)).double() - base) / quantum
        assert ((found - 7.5).abs() <= 0.5).all()


@pytest.mark.parametrize(("near", "far", "dtype"), [(1e-31, 1e30, torch.float32), (1e-140, 1.0, torch.float64)])
def test_krum_scores_rows_of_two_scales_exactly(near: float, far: float, dtype: torch.dtype) -> None:
    """Rows 2**200 times as far out as the median used to count as just that far: Multi-Krum took the wrong ones."""
    generator = torch.Generator().manual_seed(4)
    for count, close in ((5, 3), (7, 4), (9, 5), (11, 2)):
        rows = torch.randn(count, 3, generator=generator, dtype=torch.float64) * near
        rows[close:] = torch.randn(count - close, 3, generator=generator, dtype=torch.float64) * far
        rows = rows.to(dtype)
        exact = [[Fraction(value) for value in row] for row in rows.tolist()]
        squares = [[sum((a - b) ** 2 for a, b in zip(x, y, strict=True)) for y in exact] for x in exact]
        scores = [sum(sorted(line)[1 : count - 2]) for line in squares]
        order = choose_krum_rows(rows, faulty_max=1, selected=count)
        for before, after in itertools.pairwise(order):
            assert scores[before] <= scores[after] * (1 + Fraction(1, 10**6))
