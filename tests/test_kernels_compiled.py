"""The compiled backend gives the eager bits, and falls back by itself where there is no compiler."""

from collections.abc import Iterator

import pytest
import torch

from hqde_ref.core.kernels import compiled
from hqde_ref.core.kernels.exact_sums import exact_weighted_mean
from hqde_ref.core.kernels.leave_one_out import leave_one_out_scores
from hqde_ref.core.rules.coordinate_median import coordinate_median
from hqde_ref.core.rules.trimmed_mean import trimmed_mean
from hqde_ref.core.rules.weighted_mean import fast_weighted_mean
from hqde_ref.errors import ConfigurationError, NotFinite

ROWS = torch.randn(5, 3000, generator=torch.Generator().manual_seed(0))


def compare_all() -> None:
    """Every kernel that has the option, against itself without it; few rows, since compiling takes seconds each."""
    four, three = list(ROWS[:4]), list(ROWS[:3])
    assert torch.equal(coordinate_median(four, faulty_max=1, backend="compiled"), coordinate_median(four, faulty_max=1))
    masses, blocks = [0.1, 0.7, 3.0], ((0, 1000), (1000, 3000))
    exact = exact_weighted_mean(three, masses, blocks, backend="compiled")
    assert torch.equal(exact, exact_weighted_mean(three, masses, blocks))
    assert torch.allclose(fast_weighted_mean(three, weights=masses, backend="compiled"), exact, rtol=0, atol=5e-7)
    assert leave_one_out_scores(three, backend="compiled") == pytest.approx(leave_one_out_scores(three), rel=1e-5)


@pytest.fixture
def no_kernels() -> Iterator[None]:
    builders = (
        compiled.build_middle_mean,
        compiled.build_exact_mean,
        compiled.build_weighted_mean,
        compiled.build_leave_one_out,
    )
    for builder in builders:
        builder.cache_clear()
    yield
    for builder in builders:
        builder.cache_clear()


def test_without_a_compiler_the_eager_kernels_run(no_kernels: None, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_compiler(*args: object, **settings: object) -> object:
        def fail(*inputs: object) -> object:
            raise RuntimeError("no C++ compiler here")

        return fail

    monkeypatch.setattr(torch, "compile", no_compiler)
    compare_all()
    assert torch.equal(trimmed_mean(ROWS, faulty_max=1, backend="compiled"), trimmed_mean(ROWS, faulty_max=1))
    assert compiled.build_middle_mean(5, 2, 3, torch.float32, torch.device("cpu")) is None


def test_compiled_kernels_give_the_eager_bits(no_kernels: None) -> None:
    if compiled.build_middle_mean(4, 1, 3, torch.float32, torch.device("cpu")) is None:
        pytest.skip("there is no compiler here")
    compare_all()
    for value in (torch.nan, -torch.nan, torch.inf, -torch.inf):
        poisoned = ROWS[:4].clone()
        poisoned[3, 17] = value
        with pytest.raises(NotFinite, match=r"coordinate_median was given NaN or infinity in row\(s\) 3"):
            coordinate_median(poisoned, faulty_max=1, backend="compiled")
        with pytest.raises(NotFinite, match=r"weighted_mean was given NaN or infinity in row\(s\) 2"):
            fast_weighted_mean(poisoned[1:], backend="compiled")


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_compiled_networks_order_numbers_of_every_size_and_sign(no_kernels: None, dtype: torch.dtype) -> None:
    if compiled.build_middle_mean(4, 1, 3, dtype, torch.device("cpu")) is None:
        pytest.skip("there is no compiler here")
    numbers = torch.finfo(dtype)
    tiny = numbers.smallest_normal * numbers.eps  # the least above 0
    values = [
        0.0,
        -0.0,
        tiny,
        -tiny,
        1.0,
        -1.0,
        1.0 + numbers.eps,
        -1.0 - numbers.eps,
        numbers.max / 4,
        numbers.min / 4,
    ]
    drawn = torch.randint(len(values), (4, 3000), generator=torch.Generator().manual_seed(1))
    rows = torch.tensor(values, dtype=dtype)[drawn]
    assert torch.equal(coordinate_median(rows, faulty_max=1, backend="compiled"), coordinate_median(rows, faulty_max=1))


def test_an_unknown_backend_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="backend of trimmed_mean must be 'eager' or 'compiled', got 'cuda'"):
        trimmed_mean(ROWS, faulty_max=1, backend="cuda")  # type: ignore[arg-type]


def test_rows_without_a_compiled_kernel_take_the_eager_one(no_kernels: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiled, "_build", lambda *args: pytest.fail("nothing should be compiled"))
    assert trimmed_mean(ROWS.half(), faulty_max=1, backend="compiled").dtype == torch.float16
    assert trimmed_mean(ROWS[:, :0], faulty_max=1, backend="compiled").shape == (0,)
