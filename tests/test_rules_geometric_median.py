"""The geometric median and its certificate against slow oracles (clauses 0.1, 0.3, 0.5, 4.5, 4.6, 4.7)."""

import math

import numpy
import pytest
import torch
from torch import Tensor

from hqde_ref.core.certificates import certify_geometric_median
from hqde_ref.core.rules import RULES, certify
from hqde_ref.core.rules.blockwise_geometric_median import blockwise_geometric_median
from hqde_ref.core.rules.geometric_median import certified_geometric_median, geometric_median
from hqde_ref.errors import ConfigurationError, LayoutError, NotFinite, TooFewContributions


def seeded(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def slow_median(rows: Tensor, steps: int = 20000) -> numpy.ndarray:
    """Weiszfeld in plain NumPy for optima that lie on no input; many steps from the mean of the nearer half."""
    x = rows.double().numpy()
    middle = numpy.median(x, axis=0)
    near = numpy.argsort(numpy.linalg.norm(x - middle, axis=1))[: len(x) // 2 + 1]
    y = x[near].mean(axis=0)
    for _ in range(steps):
        pull = 1.0 / numpy.linalg.norm(x - y, axis=1)
        after = (pull[:, None] * x).sum(axis=0) / pull.sum()
        if numpy.abs(after - y).max() <= 1e-16 * numpy.abs(y).max():
            break
        y = after
    return y


def slow_subgradient(rows: Tensor, output: Tensor) -> float:
    x, y = rows.double().numpy(), output.double().numpy()
    far = numpy.linalg.norm(x - y, axis=1)
    pull = ((x - y)[far > 0] / far[far > 0, None]).sum(axis=0)
    return max(0.0, float(numpy.linalg.norm(pull)) - int((far == 0).sum()))


@pytest.mark.parametrize(("count", "length"), [(3, 2), (5, 3), (17, 3), (16, 100), (10, 30000), (40, 7000)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_it_agrees_with_plain_weiszfeld(count: int, length: int, dtype: torch.dtype) -> None:
    rows = seeded(count, length, dtype=dtype, seed=count)
    result = geometric_median(rows, faulty_max=1)
    assert result.dtype == dtype
    error = numpy.abs(result.double().numpy() - slow_median(rows, 3000)).max()
    assert error <= 6 * torch.finfo(dtype).eps + 1e-12


@pytest.mark.parametrize("size", [1e3, 1e6, 1e12, 1e18, 1e30])
def test_outliers_of_any_size_cost_no_digit(size: float) -> None:
    rows = 1.0 + 1e-3 * seeded(16, 20000, seed=2)
    rows[12:] *= size
    rows = rows.float()
    result = geometric_median(rows, faulty_max=4)
    error = numpy.abs(result.double().numpy() - slow_median(rows, 500)).max()
    assert error <= 1.01 * 2.0**-24 * 2


@pytest.mark.parametrize("scale", [1e-30, 1e-12, 1.0, 1e12, 1e30])
@pytest.mark.parametrize("shape", [(9, 4), (9, 40000)])
def test_scale_does_not_matter(scale: float, shape: tuple[int, int]) -> None:
    rows = (seeded(*shape, seed=4) * scale).float()
    certificate = certify_geometric_median(rows, geometric_median(rows, faulty_max=2), faulty_max=2)
    assert certificate.excess < 1e-6


@pytest.mark.parametrize("scale", [1e-300, 1e-150, 1e150, 1e300])
def test_float64_reaches_to_its_own_limits(scale: float) -> None:
    rows = seeded(7, 5, seed=5) * scale
    rows[6] = 1e300
    certificate = certify_geometric_median(rows, geometric_median(rows, faulty_max=2), faulty_max=2)
    assert certificate.excess < 1e-9


@pytest.mark.parametrize(
    "values",
    [
        [[0.0], [0.0], [0.0], [1.0], [4.0]],
        [[3.0], [1.0], [2.0]],
        [[0.0, 0.0], [1.0, 0.0], [0.0, 1.0], [-1.0, -1.0], [0.1, 0.05]],
        [[0.0, 0.0], [1.0, 1.0], [2.0, 2.0], [7.0, 7.0], [2.0, 2.0]],
    ],
)
def test_an_optimum_on_an_input_is_that_input_to_the_bit(values: list[list[float]]) -> None:
    rows = torch.tensor(values)
    result = geometric_median(rows, faulty_max=1)
    assert any(torch.equal(result, row) for row in rows)
    certificate = certify_geometric_median(rows, result, faulty_max=1)
    assert (certificate.subgradient_norm, certificate.gap) == (0.0, 0.0)


def test_an_input_just_inside_and_just_outside_the_optimum_is_told_apart() -> None:
    """Three unit pulls against one row's weight: |R| <= w decides, here at |R| = w (1 +- 1e-6)."""
    for slack, on_input in ((-1e-6, True), (1e-6, False)):
        angle = math.acos((1.0 + slack) / 2.0)
        rows = torch.tensor(
            [[0.0, 0.0], [math.cos(angle), math.sin(angle)], [math.cos(angle), -math.sin(angle)]], dtype=torch.float64
        )
        result = geometric_median(rows, faulty_max=0)
        assert torch.equal(result, rows[0]) is on_input
        assert certify_geometric_median(rows, result, faulty_max=0).excess < 1e-9


def test_two_rows_and_even_lines_give_the_middle_of_the_optimal_segment() -> None:
    assert geometric_median(torch.tensor([[0.0, 2.0], [4.0, 4.0]]), faulty_max=0).tolist() == [2.0, 3.0]
    assert geometric_median(torch.tensor([[0.0], [1.0], [3.0], [10.0]]), faulty_max=1).tolist() == [2.0]
    assert geometric_median(torch.tensor([[0.0], [1.0]]), faulty_max=0, weights=[1.0, 3.0]).tolist() == [1.0]
    assert geometric_median(torch.tensor([[7.0, -1.0]]), faulty_max=0).tolist() == [7.0, -1.0]


@pytest.mark.parametrize("length", [3, 60000])
def test_collinear_rows_give_their_median(length: int) -> None:
    direction, places = seeded(length, seed=6), torch.tensor([5.0, 1.0, 2.0, 9.0, -4.0], dtype=torch.float64)
    rows = (places[:, None] * direction).float()
    assert torch.equal(geometric_median(rows, faulty_max=2), rows[2])


def test_weights_count_as_copies() -> None:
    rows = seeded(5, 4, seed=7)
    copied = torch.cat([rows, rows[1:2], rows[3:4], rows[3:4]])
    weighted = geometric_median(rows, faulty_max=0, weights=[1.0, 2.0, 1.0, 3.0, 1.0])
    assert torch.allclose(weighted, geometric_median(copied, faulty_max=0), rtol=0, atol=1e-12)


@pytest.mark.parametrize("shape", [(8, 6), (8, 50000)])
def test_order_list_and_arena_leave_no_trace(shape: tuple[int, int]) -> None:
    rows = seeded(*shape, seed=8, dtype=torch.float32)
    rows[5] = rows[2]
    wanted, kept = geometric_median(rows, faulty_max=2), rows.clone()
    for seed in range(4):
        order = torch.randperm(8, generator=torch.Generator().manual_seed(seed))
        assert torch.equal(geometric_median(rows[order], faulty_max=2), wanted)
        assert torch.equal(geometric_median([rows[i].clone() for i in order.tolist()], faulty_max=2), wanted)
    assert torch.equal(rows, kept)


def test_a_majority_of_equal_rows_is_the_result_whatever_the_rest() -> None:
    for rest in (1.0, 1e-30, 1e30):
        rows = torch.cat([torch.full((4, 9), 0.3), seeded(3, 9, dtype=torch.float32) * rest])
        assert torch.equal(geometric_median(rows, faulty_max=3), rows[0])


def test_a_spike_outside_the_centre_sample_does_no_harm() -> None:
    """The centre is chosen on a sample of coordinates; an outlier that looks best there must not stay the centre."""
    rows = 1.0 + 1e-3 * seeded(9, 50000, seed=9)
    rows[0] = rows[1:].mean(dim=0)
    rows[0, 4999] = 1e25
    result = geometric_median(rows.float(), faulty_max=2)
    assert certify_geometric_median(rows.float(), result, faulty_max=2).excess < 1e-4


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("length", [10, 40000])
def test_half_precision_is_as_good_as_its_last_bit(dtype: torch.dtype, length: int) -> None:
    rows = seeded(9, length, seed=10, dtype=dtype)
    result = geometric_median(rows, faulty_max=2)
    wanted = torch.from_numpy(slow_median(rows, 2000))
    assert result.dtype == dtype
    allowed = 0.51 * torch.finfo(dtype).eps * wanted.abs().clamp_min(1e-2)
    assert bool(((result.double() - wanted).abs() <= allowed).all())


@pytest.mark.parametrize(("count", "faulty_max"), [(9, 1), (10, 2), (9, 3), (10, 4)])
def test_the_radius_constant_is_attained(count: int, faulty_max: int) -> None:
    """Honest rows where the tangents from y touch the unit circle, faulty ones far behind y: the ratio is 1.000."""
    share = faulty_max / (count - faulty_max)
    constant = 1.0 / math.sqrt(1.0 - share * share)
    up, down = ([1.0 / constant, sign * math.sqrt(1.0 - 1.0 / constant**2)] for sign in (1.0, -1.0))
    rows = torch.tensor([up, down] * ((count - faulty_max) // 2) + [[1e9, 0.0]] * faulty_max, dtype=torch.float64)
    result = geometric_median(rows, faulty_max=faulty_max)
    assert float(result.norm()) / constant == pytest.approx(1.0, abs=1e-6)
    certificate = certify_geometric_median(rows, result, faulty_max=faulty_max)
    assert certificate.radius_factor == pytest.approx(constant, rel=1e-9)


@pytest.mark.parametrize("faulty_max", [1, 2, 3, 4])
@pytest.mark.parametrize("count", [9, 10])
def test_kappa_is_attained(count: int, faulty_max: int) -> None:
    """p honest rows at the faulty ones' place, the others at 0: the error reaches sqrt(kappa V)."""
    honest = count - faulty_max
    p = math.ceil((count - 2 * faulty_max) / 2)
    values = [0.0] * (honest - p) + [1.0] * (p + faulty_max)
    rows = torch.tensor(values, dtype=torch.float64)[:, None] * torch.tensor([[3.0, 4.0]], dtype=torch.float64)
    kappa = count / (count - 2 * faulty_max) if count % 2 == 0 else (count - 1) / (count + 1 - 2 * faulty_max)
    mean = rows[:honest].mean(dim=0)
    variance = float(((rows[:honest] - mean) ** 2).sum()) / honest
    candidates = [geometric_median(rows, faulty_max=faulty_max)]
    if count % 2 == 0:  # both ends of the optimal segment are geometric medians; ours is its middle
        assert torch.equal(candidates[0], torch.tensor([1.5, 2.0], dtype=torch.float64))
        candidates = [rows[-1]]
        assert certify_geometric_median(rows, rows[-1], faulty_max=faulty_max).subgradient_norm == 0.0
    assert float(((candidates[0] - mean) ** 2).sum()) / (kappa * variance) == pytest.approx(1.0, abs=1e-12)


@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e30])
def test_the_certificate_measures_other_peoples_errors(scale: float) -> None:
    rows = seeded(9, 20, seed=11) * scale
    for output in (rows.mean(dim=0), rows[3], rows.median(dim=0).values):
        certificate = certify_geometric_median(rows, output, faulty_max=2)
        assert certificate.subgradient_norm == pytest.approx(slow_subgradient(rows, output), rel=1e-9)
        best = torch.from_numpy(slow_median(rows))
        true_gap = float((rows - output).norm(dim=1).sum() - (rows - best).norm(dim=1).sum())
        assert certificate.gap is not None
        assert true_gap <= certificate.gap * (1 + 1e-9) <= 60 * true_gap


def test_the_certificate_bounds_the_distance_for_any_faulty_choice() -> None:
    rows = seeded(10, 3, seed=12)
    rows[7:] += 5.0
    for output in (geometric_median(rows, faulty_max=3), rows[:7].mean(dim=0), rows.median(dim=0).values):
        certificate = certify_geometric_median(rows, output, faulty_max=3)
        if certificate.radius_factor is not None:
            centre = rows[:7].mean(dim=0)
            radius = float((rows[:7] - centre).norm(dim=1).max())
            assert float((output - centre).norm()) <= certificate.radius_factor * radius


def test_the_certificate_says_what_it_found() -> None:
    rows = torch.tensor([[0.0], [0.0], [0.0], [1.0], [4.0]])
    good = certify_geometric_median(rows, torch.tensor([0.0]), faulty_max=1)
    assert good.because == (
        "the output is a geometric median and lies within 1.033 honest radii of any point with 1 faulty row"
    )
    stuck = certify_geometric_median(rows, torch.tensor([1.0]), faulty_max=1)
    assert (
        stuck.because == "the output leaves a pull of 1 contributions (gap 1.85) "
        "and lies within 1.155 honest radii of any point with 1 faulty row"
    )
    assert certify_geometric_median(rows, torch.tensor([9.0]), faulty_max=1).radius_factor is None


def test_blocks_are_medians_by_themselves() -> None:
    rows = seeded(7, 10, seed=13)
    result = blockwise_geometric_median(rows, faulty_max=2, blocks=((0, 4), (4, 10)))
    assert torch.equal(result[:4], geometric_median(rows[:, :4], faulty_max=2))
    assert torch.equal(result[4:], geometric_median(rows[:, 4:], faulty_max=2))
    assert torch.equal(blockwise_geometric_median(rows, faulty_max=2, blocks=((0, 4), (4, 4), (4, 10))), result)
    assert torch.equal(blockwise_geometric_median(rows, faulty_max=2), geometric_median(rows, faulty_max=2))
    with pytest.raises(
        LayoutError, match=r"blocks of blockwise_geometric_median: wanted ranges \(pairs of integers\) that cover 0..10"
    ):
        blockwise_geometric_median(rows, faulty_max=2, blocks=((0, 4), (5, 10)))
    rows[1, 2], rows[5, 9] = math.nan, math.inf
    with pytest.raises(NotFinite, match=r"blockwise_geometric_median was given NaN or infinity in row\(s\) 1, 5"):
        blockwise_geometric_median(rows, faulty_max=2, blocks=((0, 4), (4, 10)))


def test_weights_hold_in_every_block() -> None:
    rows, weights = seeded(5, 6, seed=21), [1.0, 2.0, 1.0, 3.0, 1.0]
    result = blockwise_geometric_median(rows, faulty_max=1, blocks=((0, 2), (2, 6)), weights=weights)
    assert torch.equal(result[2:], geometric_median(rows[:, 2:], faulty_max=1, weights=weights))
    certificate = certify(
        "blockwise_geometric_median", rows, result, faulty_max=1, blocks=((0, 2), (2, 6)), weights=weights
    )
    assert certificate.excess < 1e-9


def test_blocks_are_certified_one_by_one() -> None:
    rows, name, blocks = seeded(7, 10, seed=13), "blockwise_geometric_median", ((0, 4), (4, 10))
    result = blockwise_geometric_median(rows, faulty_max=2, blocks=blocks)
    good = certify(name, rows, result, faulty_max=2, blocks=blocks)
    alone = [certify("geometric_median", rows[:, :4], result[:4], faulty_max=2)]
    alone.append(certify("geometric_median", rows[:, 4:], result[4:], faulty_max=2))
    assert good.blocks == tuple(alone)
    assert good.radius_factor == pytest.approx(math.sqrt(2) / math.sqrt(1 - (2 / 5) ** 2), abs=1e-6)
    assert certify(name, rows, result, faulty_max=2).excess > 1e-2  # it is no joint median
    spoilt = torch.cat([result[:4], rows[:, 4:].mean(dim=0)])
    bad = certify(name, rows, spoilt, faulty_max=2, blocks=blocks)
    assert bad.blocks[0] == good.blocks[0]
    assert bad.excess == bad.blocks[1].excess > 1e-2
    assert bad.because.startswith("in the worst of 2 blocks, 4..10, the output leaves a pull of")
    worst = max(good.blocks, key=lambda block: block.excess)
    assert (
        f"within {worst.radius_factor:.4g} honest radii of that block of any point with 2 faulty rows" in good.because
    )
    assert good.because.endswith(f"; the whole lies within {good.radius_factor:.4g} of any point")
    nowhere = certify(name, rows, rows[0] + 100.0, faulty_max=2, blocks=blocks)
    assert nowhere.radius_factor is None
    assert nowhere.because.endswith(
        "no radius can be promised with 2 faulty rows; of the whole no radius can be promised"
    )
    one = certify(name, rows, result, faulty_max=2)
    assert one.because == f"in the only block, 0..10, {one.blocks[0].because}"
    with pytest.raises(
        LayoutError, match=r"output of blockwise_geometric_median: wanted a float16, .* row of 10 on cpu"
    ):
        certify(name, rows, result[:9], faulty_max=2, blocks=blocks)


@pytest.mark.parametrize(("count", "faulty"), [(6, 1), (7, 2), (9, 4), (10, 3)])
def test_kappa_is_attained_block_by_block(count: int, faulty: int) -> None:
    """The worst rows of the joint rule, other honest rows being the far ones in the second block."""
    resting = math.ceil((count - 2 * faulty) / 2)
    honest = torch.zeros(count - faulty, 2, dtype=torch.float64)
    honest[-resting:, 0] = 1.0
    honest[:resting, 1] = 5.0
    rows = torch.cat([honest, torch.tensor([[1.0, 5.0]] * faulty, dtype=torch.float64)])
    blocks = ((0, 1), (1, 2))
    result = torch.tensor([1.0, 5.0], dtype=torch.float64)  # with n even, the end of an optimal segment
    certificate = certify("blockwise_geometric_median", rows, result, faulty_max=faulty, blocks=blocks)
    assert certificate.subgradient_norm == 0.0
    if count % 2:
        assert torch.equal(blockwise_geometric_median(rows, faulty_max=faulty, blocks=blocks), result)
    mean = honest.mean(dim=0)
    variance = float(((honest - mean) ** 2).sum()) / len(honest)
    kappa = RULES["blockwise_geometric_median"].kappa
    assert kappa is not None
    assert float(((result - mean) ** 2).sum()) / (kappa(count, faulty) * variance) == pytest.approx(1.0, abs=1e-12)


def test_bad_input_is_refused_by_name() -> None:
    rows = seeded(5, 3, dtype=torch.float32)
    with pytest.raises(TooFewContributions, match="geometric_median with faulty_max=3 needs at least 7"):
        geometric_median(rows, faulty_max=3)
    with pytest.raises(ConfigurationError, match="faulty_max of geometric_median must be an integer of at"):
        geometric_median(rows, faulty_max=-1)
    with pytest.raises(LayoutError, match=r"updates of geometric_median: wanted one dtype in all rows \(torch.float32"):
        geometric_median([*rows, rows[0].double()], faulty_max=1)
    with pytest.raises(LayoutError, match=r"one length in all rows \(3, as in row 0\), got 2 in row\(s\) 1;"):
        geometric_median([rows[0], rows[1][:2], rows[2]], faulty_max=1)
    with pytest.raises(LayoutError, match=r"one device in all rows \(cpu, as in row 0\), got meta in row\(s\) 1"):
        geometric_median([rows[0], rows[1].to("meta"), rows[2]], faulty_max=1)
    with pytest.raises(LayoutError, match=r"torch.int64 in row 0; aggregate integer and boolean entries"):
        geometric_median(torch.ones(3, 2, dtype=torch.int64), faulty_max=1)
    with pytest.raises(LayoutError, match="1-D rows, got shape"):
        geometric_median([torch.ones(2, 2)] * 3, faulty_max=1)
    with pytest.raises(LayoutError, match=r"got a tensor of shape \(3,\)"):
        geometric_median(torch.ones(3), faulty_max=1)
    rows[1, 2], rows[4, 0] = math.nan, math.inf
    with pytest.raises(NotFinite, match=r"geometric_median was given NaN or infinity in row\(s\) 1, 4; screen"):
        geometric_median(rows, faulty_max=1)


def test_many_rows_are_swept_and_agree_with_the_gram_matrix() -> None:
    """From 129 rows on no Gram matrix is formed where sweeps converge; 128 of the rows are solved the other way."""
    rows = (0.5 + seeded(140, 3000, seed=14)).float()
    rows[:20] *= 1e6
    result = geometric_median(rows, faulty_max=20)
    assert float((result.double() - torch.from_numpy(slow_median(rows, 200))).abs().max()) < 5e-7
    order = torch.randperm(140, generator=torch.Generator().manual_seed(0))
    assert torch.equal(geometric_median(list(rows[order]), faulty_max=20), result)
    near = (1.0 + 1e-3 * seeded(140, 3000, seed=15)).float()
    assert (
        float((geometric_median(near, faulty_max=20).double() - torch.from_numpy(slow_median(near, 200))).abs().max())
        < 1.3e-7
    )


def test_many_rows_that_do_not_settle_in_sweeps_are_still_solved() -> None:
    """Two clusters, and a majority of equal rows: sweeps would creep or divide by nothing."""
    clusters = torch.cat([seeded(70, 2000, seed=16) * 1e-2, 1.0 + seeded(71, 2000, seed=17) * 1e-2]).float()
    assert certify_geometric_median(clusters, geometric_median(clusters, faulty_max=0), faulty_max=0).excess < 1e-3
    equal = torch.cat([torch.full((80, 2000), 0.1), seeded(60, 2000, seed=18).float()])
    assert torch.equal(geometric_median(equal, faulty_max=60), equal[0])
    equal[3, 7] = math.nan
    with pytest.raises(NotFinite, match=r"row\(s\) 3; screen"):
        geometric_median(equal, faulty_max=60)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("length", [3, 40000])
def test_a_noisy_line_is_no_trap(length: int) -> None:
    """Optimal to 1e-4 anywhere between the middle rows: the output must not lie a rounding error beside one of them."""
    for seed in range(4):
        direction, noise = seeded(2, length, seed=seed), seeded(16, length, seed=seed + 20)
        rows = (direction[0] + torch.arange(16.0)[:, None] * direction[1] + 1e-4 * noise).float()
        certificate = certify_geometric_median(rows, geometric_median(rows, faulty_max=3), faulty_max=3)
        assert certificate.excess < 1e-3


@pytest.mark.parametrize("length", [7, 40000])
@pytest.mark.parametrize("count", [9, 140])
def test_the_solvers_own_certificate_agrees_with_the_independent_one(count: int, length: int) -> None:
    if count * length > 1 << 20:
        length //= 10
    rows = seeded(count, length, seed=19, dtype=torch.float32)
    rows[:2] *= 1e12
    row, own = certified_geometric_median(rows, faulty_max=2)
    assert torch.equal(row, geometric_median(rows, faulty_max=2))
    independent = certify_geometric_median(rows, row, faulty_max=2)
    assert own.radius_factor == pytest.approx(independent.radius_factor, rel=1e-4)
    assert own.excess <= 1e-6
    assert independent.excess <= 1e-6
    at_input, certificate = certified_geometric_median([rows[3]] * 5 + list(rows[:3]), faulty_max=3)
    assert torch.equal(at_input, rows[3])
    assert (certificate.subgradient_norm, certificate.gap) == (0.0, 0.0)


def test_rows_one_rounding_apart_are_told_apart() -> None:
    """Around a row farther off their distances are rounding, and a step from one of them leads astray."""
    beyond = [
        [0.3, 0.6],
        [0.3, -0.8],
        [0.9, -0.4],
        [-0.9, 0.0],
        [-0.6, -0.8],
        [0.30000000000000004, 0.6000000000000001],
    ]
    rows = torch.tensor(beyond, dtype=torch.float64)
    assert certify_geometric_median(rows, geometric_median(rows, faulty_max=1), faulty_max=1).excess < 1e-9
    at_two = torch.tensor(
        [
            [1.278359613957436, 0.07146186870375407],
            [1.9739663207954257, -0.8814113205872511],
            [1.1545515325247013, -0.3474336650896929],
            [-0.21944698694917195, 1.4019565560405023],
            [1.2783596139574362, 0.07146186870375408],
            [1.9739663207954259, -0.881411320587251],
        ],
        dtype=torch.float64,
    )
    found = torch.cdist(at_two, geometric_median(at_two, faulty_max=1)[None]).sum()
    assert found <= torch.cdist(at_two, at_two).sum(dim=0).min() * (1 + 1e-12)


@pytest.mark.parametrize("count", [101, 127])
def test_an_input_that_is_pulled_off_is_not_called_the_median(count: int) -> None:
    """The others pull row 0 with 1.0015 of what holds it: too little for float32 products to be sure of."""
    length, excess = 6000, 1.0015
    rows = torch.zeros(count, length, dtype=torch.float64)
    rows[1:, 0] = excess / (count - 1)  # unit vectors that add up to the excess along one axis
    for place in range(1, count, 2):
        side = math.sqrt(1.0 - float(rows[place, 0]) ** 2)
        rows[place, place], rows[place + 1, place] = side, -side
    for kind in (torch.float32, torch.float64):
        result, own = certified_geometric_median(rows.to(kind), faulty_max=1)
        told = certify_geometric_median(rows.to(kind), result, faulty_max=1)
        assert own.excess >= told.excess - 1e-6
        assert ("is a geometric median" in own.because) <= (told.excess < 1e-6)


def test_the_gap_bounds_how_much_better_any_point_is() -> None:
    corners = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]], dtype=torch.float64)
    least = float(torch.cdist(corners, geometric_median(corners, faulty_max=0)[None]).sum())
    for seed in range(200):
        output = torch.randn(2, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * 10.0 ** (seed % 4)
        found = float(torch.cdist(corners, output[None]).sum()) - least
        gap = certify_geometric_median(corners, output, faulty_max=0).gap
        assert gap is not None
        assert found <= gap * (1 + 1e-9)


def test_weights_of_any_size_count_by_their_ratios() -> None:
    rows = torch.tensor([[0.0], [1.0], [5.0], [6.0], [7.0]])
    assert geometric_median(rows, faulty_max=1, weights=[1e307] * 5) == 5.0
    assert geometric_median(rows, faulty_max=1, weights=[torch.tensor(2.0)] * 5) == 5.0
    for weights, said in (([1.0] * 4 + ["x"], "weight 4"), ([10**400] * 5, "weight 0")):
        with pytest.raises(ConfigurationError, match=f"{said} of geometric_median must be a float64 number"):
            geometric_median(rows, faulty_max=1, weights=weights)  # type: ignore[arg-type]
    for weights, said in ((1.0, "float"), (torch.ones(5, 1), "a tensor of shape"), ("11111", "str")):
        with pytest.raises(LayoutError, match=f"weights of geometric_median: wanted 5 .one per row., got {said}"):
            geometric_median(rows, faulty_max=1, weights=weights)  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="sum of the weights of geometric_median must be at most"):
        geometric_median(rows, faulty_max=1, weights=[1e308] * 5)


@pytest.mark.parametrize("rest", [(4.0, 5.0), (7.0, 11.0), (0.0, 10.0), (2.0, 3.0)])
def test_two_rows_beside_each_other_are_no_pair_of_optima_because_the_others_are_far_away(
    rest: tuple[float, float],
) -> None:
    rows = [torch.tensor([value], dtype=torch.float64) for value in (125730218311680.0, 125730218311680.0, *rest)]
    found = geometric_median(rows, faulty_max=1)
    assert max(rest) <= float(found) <= 125730218311680.0
    assert certify_geometric_median(rows, found, faulty_max=1).excess == 0.0
