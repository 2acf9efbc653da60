"""Gram up, weights down: sharded gram rules equal the flat ones (clause 3.8)."""

import pytest
import torch
from torch import Tensor

from hqde_ref.core.rules import RULES, Rule
from hqde_ref.core.rules.coefficients import combine_shard, shard_products
from hqde_ref.errors import LayoutError, NotFinite, TooFewContributions

WEIGHED = [pytest.param(rule, id=name) for name, rule in RULES.items() if rule.weigh is not None]
CUTS = ((0, 8192), (8192, 8192), (8192, 24576), (24576, 30000))


def seeded(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def run_sharded(rule: Rule, rows: Tensor, faulty_max: int) -> tuple[Tensor, tuple[float, ...]]:
    products = sum((shard_products(rows[:, low:high]) for low, high in CUTS), torch.zeros((), dtype=torch.float64))
    assert rule.weigh is not None
    assert isinstance(products, Tensor)
    shares = rule.weigh(products, faulty_max=faulty_max)
    return torch.cat([combine_shard(rows[:, low:high], shares) for low, high in CUTS]), shares


@pytest.mark.parametrize("rule", WEIGHED)
@pytest.mark.parametrize("offset", [0.0, 1.0])
def test_sharded_equals_flat(rule: Rule, offset: float) -> None:
    rows = offset + seeded(11, 30000) * (1e-2 if offset else 1.0)
    rows[:2] += 0.1
    rows = rows[seeded(11)[:].argsort()].float()
    result, shares = run_sharded(rule, rows, 2)
    assert sum(shares) == pytest.approx(1.0, abs=1e-12)
    assert min(shares) >= 0.0
    assert float((result - rule.aggregate(rows, faulty_max=2)).abs().max()) < 1e-6


@pytest.mark.parametrize("rule", WEIGHED)
@pytest.mark.parametrize("size", [1e-30, 1e30])
def test_equal_honest_rows_give_that_row_to_the_bit(rule: Rule, size: float) -> None:
    if "exact_fit" not in rule.symmetries:
        pytest.skip("the rule does not promise it")
    row = seeded(30000, seed=1).float()
    rows = torch.stack([row] * 9 + list((seeded(2, 30000, seed=2) * size).float()))
    assert torch.equal(run_sharded(rule, rows, 2)[0], row)


def test_products_do_not_depend_on_a_shared_offset() -> None:
    rows = torch.randint(-50, 50, (6, 40), generator=torch.Generator().manual_seed(3)).float()
    assert torch.equal(shard_products(rows), shard_products(rows + 4096.0))


def test_bad_input_is_refused_by_name() -> None:
    rule = RULES["krum"]
    assert rule.weigh is not None
    products = shard_products(seeded(6, 5))
    with pytest.raises(TooFewContributions, match="krum with faulty_max=2 needs at least 7 contributions, got 6"):
        rule.weigh(products, faulty_max=2)
    with pytest.raises(LayoutError, match=r"inner products: wanted a square float64 matrix, got \(6, 6\)"):
        rule.weigh(products.float(), faulty_max=1)
    products[2, 3] = torch.inf
    with pytest.raises(NotFinite, match=r"inner products was given NaN or infinity in row\(s\) 2"):
        rule.weigh(products, faulty_max=1)
    with pytest.raises(LayoutError, match=r"shares of combine_shard: wanted 6 \(one per row\), got 2"):
        combine_shard(seeded(6, 5), [0.5, 0.5])
