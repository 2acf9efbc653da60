"""Points that lie to each other as rows do: from Cholesky's factor where there is one, else from eigenvectors."""

from __future__ import annotations

import hashlib

import pytest
import torch
from torch import Tensor

from hqde_ref.core.isometry import embed, express, partial_gram
from hqde_ref.core.kernels import median_sweeps
from hqde_ref.core.rules import RULES, certify
from hqde_ref.core.rules.filtered_geometric_median import choose_outliers
from hqde_ref.errors import ConfigurationError


def _normal(count: int, length: int) -> Tensor:
    return torch.randn(count, length, dtype=torch.float64, generator=torch.Generator().manual_seed(7))


def _equal_pairs(rows: Tensor) -> Tensor:
    return rows.repeat_interleave(2, dim=0)


CASES = {
    "more coordinates than rows": _normal(9, 40),
    "fewer coordinates than rows": _normal(9, 3),
    "equal rows": _equal_pairs(_normal(4, 40)),
    "equal rows, fewer coordinates": _equal_pairs(_normal(5, 3)),
    "equal rows apart": _normal(3, 40)[[0, 1, 0, 2, 1]],
    "on a line": _normal(1, 40) * torch.arange(6, dtype=torch.float64)[:, None],
    "of sizes 1e-30 to 1e30": _normal(5, 40) * torch.tensor([1e-30, 1e-10, 1.0, 1e10, 1e30])[:, None],
    "a rounding apart": 1.0 + 1e-9 * _normal(6, 40),
    "nearly dependent": torch.cat([_normal(5, 40), _normal(5, 40).mean(dim=0, keepdim=True) + 1e-7]),
    "all equal": torch.ones(4, 5, dtype=torch.float64),
    "one row": _normal(1, 5),
}


def _contents(rows: Tensor) -> list[str]:
    return [hashlib.sha256(row.numpy().tobytes()).hexdigest() for row in rows]


@pytest.mark.parametrize("case", CASES)
def test_points_lie_to_each_other_as_the_rows_do(case: str) -> None:
    rows = CASES[case]
    gram, centre = partial_gram(list(rows))
    embedding = embed(gram, contents=_contents(rows))
    lengths = (rows - rows[centre]).norm(dim=1)
    assert torch.allclose(embedding.lengths, lengths, rtol=1e-12, atol=0.0)
    for i, row in enumerate(rows):
        for j, other in enumerate(rows):
            found = float((embedding.points[i] - embedding.points[j]).norm())
            wanted = float((row - other).norm())
            assert abs(found - wanted) <= 1e-13 * float(max(lengths[i], lengths[j])), (i, j, found, wanted)
            assert bool(row.equal(other)) == bool(embedding.points[i].equal(embedding.points[j]))


@pytest.mark.parametrize("case", CASES)
def test_multipliers_of_a_mean_give_the_mean(case: str) -> None:
    rows = CASES[case]
    gram, _ = partial_gram(list(rows))
    embedding = embed(gram, contents=_contents(rows))
    shares = torch.arange(1, len(rows) + 1, dtype=torch.float64)
    point = shares / shares.sum() @ embedding.points
    again = torch.tensor(express(point, embedding), dtype=torch.float64) @ embedding.points
    assert float((again - point).norm()) <= 1e-13 * float(embedding.lengths.max())


def test_a_point_that_is_a_row_has_that_row_alone() -> None:
    rows = CASES["equal rows"]
    gram, _ = partial_gram(list(rows))
    embedding = embed(gram, contents=_contents(rows))
    assert express(embedding.points[5], embedding) == (0.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0)


def test_both_factors_lay_the_same_points(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = CASES["more coordinates than rows"]
    gram, _ = partial_gram(list(rows))
    contents = _contents(rows)
    quick = embed(gram, contents=contents)
    assert bool((quick.units.triu(1) == 0.0).all())  # Cholesky's
    monkeypatch.setattr(torch.linalg, "cholesky_ex", lambda matrix: (matrix, torch.tensor(1)))
    slow = embed(gram, contents=contents)
    assert not bool((slow.units.triu(1) == 0.0).all())
    assert torch.allclose(quick.points @ quick.points.T, slow.points @ slow.points.T, rtol=0.0, atol=1e-12)
    point = torch.ones(9, dtype=torch.float64) / 9
    assert express(point @ quick.points, quick) == pytest.approx(express(point @ slow.points, slow), abs=1e-9)


@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e30])
def test_outliers_among_many_rows_are_those_that_the_gram_matrix_shows(
    scale: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = _normal(median_sweeps.SWEEP_ROWS + 31, 300).to(torch.float32)
    rows[:30] *= torch.linspace(1.5, 9.0, 30)[:, None]
    rows *= scale
    swept = choose_outliers(rows, rejections_max=40)
    monkeypatch.setattr("hqde_ref.core.rules.filtered_geometric_median.SWEEP_ROWS", 1000)
    multiplied = choose_outliers(rows, rejections_max=40)
    assert swept.kept == multiplied.kept
    assert 130 <= len(swept.kept) < 160
    assert swept.scores == pytest.approx(multiplied.scores, rel=1e-6)
    assert swept.scores != multiplied.scores  # it is another way


@pytest.mark.parametrize("exponent", [-140, -170, -300])
def test_distances_whose_products_vanish_are_refused_where_nothing_is_larger(exponent: int) -> None:
    """All points would coincide, and any row be certified as right."""
    rows = _normal(7, 5) * 10.0**exponent / 100
    gram, _ = partial_gram(list(rows))
    with pytest.raises(ConfigurationError, match=r"greatest distance in a sharded .* at least 1e-140, got .* or less"):
        embed(gram, contents=_contents(rows))
    beside = torch.cat([rows, torch.full((1, 5), 1e-100, dtype=torch.float64)])  # whoever is near may vanish
    gram, _ = partial_gram(list(beside))
    assert float(embed(gram, contents=_contents(beside)).lengths.max()) == pytest.approx(1e-100 * 5**0.5)


def test_a_tie_at_the_limit_is_not_left_to_sweeps() -> None:
    """Rows along the axes: half of them 1 from the median, some 3, exactly at the limit. Sweeps see 3 + 1.6e-8."""
    eye = torch.eye(70)
    rows = torch.cat([eye, -eye, 3 * eye[:5], -3 * eye[:5]])
    assert len(rows) > median_sweeps.SWEEP_ROWS
    assert choose_outliers(rows, rejections_max=20).kept == tuple(range(150))
    output = RULES["filtered_geometric_median"].aggregate(rows, faulty_max=20)
    certificate = certify("filtered_geometric_median", rows, output, faulty_max=20)
    assert certificate.excess < 1e-6
    assert certificate.because.startswith("of the 150 rows kept of 150")


def test_a_tie_at_the_cut_is_not_left_to_sweeps() -> None:
    """Ten rows are equally far out and four may go: which, the order of contents says, and no noise."""
    eye = torch.eye(70)
    rows = torch.cat([eye, -eye, 6 * eye[:5], -6 * eye[:5]])
    found = choose_outliers(rows, rejections_max=4)
    assert len(found.kept) == 146
    assert found.scores[140:] == pytest.approx([6.0] * 10, abs=1e-13)  # sweeps are good to 1e-7
    shuffled = torch.randperm(150, generator=torch.Generator().manual_seed(3))
    again = choose_outliers(rows[shuffled], rejections_max=4)
    assert sorted(shuffled[list(again.kept)].tolist()) == list(found.kept)
