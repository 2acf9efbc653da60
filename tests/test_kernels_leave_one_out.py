"""Leave-one-out deviations against the definition, target by target (clause 4.3, erratum E10)."""

import math

import pytest
import torch
from torch import Tensor

from hqde_ref.core.kernels.compiled import Backend
from hqde_ref.core.kernels.leave_one_out import leave_one_out_ratios, leave_one_out_scores, leave_one_out_table
from hqde_ref.errors import ConfigurationError, LayoutError, NotFinite, TooFewContributions


def slow_table(rows: Tensor) -> tuple[Tensor, Tensor]:
    """The document's loop: everything anew for every target, torch.median being the lower one."""
    deviations, spreads = [], []
    for index in range(len(rows)):
        others = torch.cat([rows[:index], rows[index + 1 :]])
        median = others.median(dim=0).values
        spreads.append((others - median).abs().median(dim=0).values)
        deviations.append((rows[index] - median).abs())
    return torch.stack(deviations), torch.stack(spreads)


def tied(count: int, length: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    values = torch.randint(-2, 3, (count, length), generator=generator).float()
    return values * (torch.randint(0, 2, (count, length), generator=generator).float() * 2 - 1)


def spread(count: int, length: int, seed: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(count, length, generator=torch.Generator().manual_seed(seed)).to(dtype)


@pytest.mark.parametrize("count", [2, 3, 4, 5, 8, 9, 16, 17, 31, 49, 60])
def test_deviations_and_spreads_equal_the_definition_bit_for_bit(count: int) -> None:
    for rows in (spread(count, 400, count), tied(count, 400, count), spread(count, 400, 1).round() * 1e30):
        kept = rows.clone()
        deviations, spreads = leave_one_out_table(rows)
        slow_deviations, slow_spreads = slow_table(rows)
        assert torch.equal(deviations, slow_deviations)
        assert torch.equal(spreads, slow_spreads)
        assert torch.equal(rows, kept)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_dtypes_are_measured_in_their_accumulating_dtype(dtype: torch.dtype) -> None:
    rows = spread(7, 300, 2, dtype)
    wide = rows if dtype == torch.float64 else rows.float()
    assert all(torch.equal(a, b) for a, b in zip(leave_one_out_table(rows), slow_table(wide), strict=True))


@pytest.mark.parametrize("length", [1, 70000])
def test_scores_are_the_documents_mean_of_ratios(length: int) -> None:
    rows = spread(8, length, 3)
    deviations, spreads = slow_table(rows)
    wanted = (deviations.double() / (spreads + 1e-8).double()).mean(dim=1)
    assert leave_one_out_scores(rows) == pytest.approx(wanted.tolist(), rel=1e-6)
    ratios = deviations.double().sum(dim=1) / spreads.double().sum(dim=1)
    assert leave_one_out_ratios(rows) == pytest.approx(ratios.tolist(), rel=1e-12)


def test_scores_of_the_documents_example_show_why_its_mean_of_ratios_fails() -> None:
    """Two honest rows score 1e7 where the others' spread is 0 (E10); the ratio of sums has the liar on top."""
    rows = torch.tensor([[1.0, 1.0]] * 5 + [[1.1, 1.1], [1.2, 1.2], [8.0, 8.0]])
    scores, ratios = leave_one_out_scores(rows), leave_one_out_ratios(rows)
    assert min(scores[5:]) > 1e6
    assert all(math.isfinite(score) for score in scores + ratios)
    assert max(range(8), key=ratios.__getitem__) == 7
    assert ratios[:5] == (0.0,) * 5


@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e30])
def test_ratios_have_no_unit_and_identical_rows_score_nothing(scale: float) -> None:
    rows = spread(9, 100, 4)
    assert leave_one_out_ratios(rows * scale) == pytest.approx(leave_one_out_ratios(rows), rel=1e-5)
    assert leave_one_out_ratios([rows[0] * scale] * 5) == (0.0,) * 5
    assert leave_one_out_scores([rows[0] * scale] * 5) == (0.0,) * 5


def test_a_far_row_tops_the_ratios_whatever_the_spread_of_the_rest() -> None:
    for seed in range(10):
        rows = spread(10, 50, seed)
        rows[:6] = rows[0]
        rows[7] += 1000.0
        ratios = leave_one_out_ratios(rows)
        assert max(range(10), key=ratios.__getitem__) == 7


def test_bad_input_is_refused_by_name() -> None:
    rows = spread(5, 10, 5)
    with pytest.raises(
        TooFewContributions, match=r"^leave_one_out needs at least 2 contributions, got 1; add workers\.$"
    ):
        leave_one_out_scores(rows[:1])
    for floor, shown in (
        (0.0, r"0\.0"),
        ("x", "'x'"),
        (None, "None"),
        (True, "True"),
        (10**400, r"10+\.\.\. \(401 ch"),
    ):
        with pytest.raises(ConfigurationError, match=f"floor of leave_one_out must be finite and above 0, got {shown}"):
            leave_one_out_scores(rows, floor=floor)  # type: ignore[arg-type]
    assert leave_one_out_scores(rows, floor=1) == leave_one_out_scores(rows, floor=1.0)
    rows[3, 2] = math.nan
    with pytest.raises(NotFinite, match=r"leave_one_out was given NaN or infinity in row\(s\) 3"):
        leave_one_out_ratios(rows)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_every_score_of_finite_rows_is_finite(dtype: torch.dtype) -> None:
    greatest = torch.finfo(dtype).max
    for far in (1e30, greatest / 4):
        rows = torch.cat([torch.ones(5, 100, dtype=dtype), torch.full((1, 100), far, dtype=dtype)])
        scores, ratios = leave_one_out_scores(rows), leave_one_out_ratios(rows)
        assert all(map(math.isfinite, scores))
        assert all(map(math.isfinite, ratios))
        assert max(scores[:5]) < scores[5]
        assert max(ratios[:5]) < ratios[5]
    both = torch.tensor([[greatest], [-greatest], [greatest], [-greatest], [1.0]], dtype=dtype)
    assert all(map(math.isfinite, leave_one_out_ratios(both)))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("end", ["greatest", "least"])
def test_ratios_are_free_of_units_to_the_ends_of_a_dtype(dtype: torch.dtype, end: str) -> None:
    """Differences of the greatest numbers overflow, and shares of the least ones vanished."""
    kind = torch.finfo(dtype)
    for rows in ([[1.0], [-1.0], [1.0], [-1.0], [0.5]], [[5.0], [5.0], [5.0], [5.0], [6.0]], [[1.0, -2.0]] * 3):
        plain = torch.tensor(rows, dtype=torch.float64)
        least = 2.0 * kind.smallest_normal * kind.eps
        unit = 2.0 ** (math.frexp(kind.max / float(plain.abs().max()))[1] - 1) if end == "greatest" else least
        scaled = (plain * unit).to(dtype)
        assert torch.equal(scaled.double(), plain * unit)
        assert leave_one_out_ratios(scaled) == pytest.approx(leave_one_out_ratios(plain), rel=1e-12)


def test_ratios_of_many_tiny_numbers_are_those_of_large_ones() -> None:
    rows = torch.randn(7, 100_000, generator=torch.Generator().manual_seed(1))
    wanted = leave_one_out_ratios(rows)
    for scale in (2.0**-120, 2.0**-127, 2.0**124):
        assert leave_one_out_ratios(rows * scale) == pytest.approx(wanted, rel=1e-4)
        assert leave_one_out_ratios(rows.double() * scale) == pytest.approx(wanted, rel=1e-6)


def test_scores_of_rows_without_data_are_refused() -> None:
    rows = torch.randn(5, 3, device="meta")
    for ask in (leave_one_out_scores, leave_one_out_ratios):
        with pytest.raises(LayoutError, match="updates of leave_one_out: wanted rows with data, got rows on the meta"):
            ask(rows)


@pytest.mark.parametrize("backend", ["eager", "compiled"])
@pytest.mark.parametrize(
    ("dtype", "least"), [(torch.float16, "1.18e-38"), (torch.float32, "1.18e-38"), (torch.float64, "2.23e-308")]
)
def test_a_floor_that_would_vanish_is_refused(backend: Backend, dtype: torch.dtype, least: str) -> None:
    """Beside a spread of 0, a deviation of 0 over a floor of 0 was no number."""
    rows = torch.ones(4, 3, dtype=dtype)
    with pytest.raises(ConfigurationError, match=f"floor of leave_one_out must be at least {least} for {dtype} rows"):
        leave_one_out_scores(rows, floor=5e-324, backend=backend)
    assert leave_one_out_scores(rows, floor=3e-38 if dtype != torch.float64 else 3e-308) == (0.0,) * 4
