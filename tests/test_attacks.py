"""Every attack does something, is sent by exactly f colluders, and searching ones find what they search for."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from hqde_ref.core.combining import resolve_rows
from hqde_ref.errors import ConfigurationError, LayoutError, NotFinite
from hqde_ref.messages import Contribution, Entry, Forge, Layout, Payload, Policy
from hqde_ref.nodes.worker import WorkerSpec, flip_labels
from hqde_ref.workloads import load_workload
from simulator import harness
from simulator.attack_knowledge import Aggregation
from simulator.attack_search import find_worst_lie
from simulator.attacks import ATTACKS, Knowledge, check_attack, collude, forge
from simulator.execution import run_all
from simulator.scenario_reading import parse_scenario

HONEST, FAULTY, LENGTH = 7, 3, 40


def knowledge(*, rule: Aggregation | None = None, seed: int = 0, honest: int = HONEST) -> Knowledge:
    generator = torch.Generator().manual_seed(seed)
    rows = 1.0 + 0.5 * torch.randn(honest, LENGTH, generator=generator)
    return Knowledge(
        honest=list(rows),
        base=torch.zeros(LENGTH),
        generator=torch.Generator().manual_seed(seed + 1),
        colluders=FAULTY,
        rule=rule,
    )


def mean(rows: Sequence[Tensor]) -> Tensor:
    return torch.stack([row.double() for row in rows]).mean(dim=0)


def median(rows: Sequence[Tensor]) -> Tensor:
    ordered = torch.stack([row.double() for row in rows]).sort(dim=0).values
    return (ordered[(len(rows) - 1) // 2] + ordered[len(rows) // 2]) / 2


def krum(rows: Sequence[Tensor]) -> Tensor:
    stacked = torch.stack([row.double() for row in rows])
    squares = (stacked[:, None] - stacked).square().sum(dim=2)
    scores = squares.sort(dim=1).values[:, 1 : len(rows) - FAULTY - 1].sum(dim=1)
    return stacked[int(scores.argmin())]


@pytest.mark.parametrize("name", ATTACKS)
def test_an_attack_is_sent_by_exactly_f_colluders_and_leaves_the_honest_alone(name: str) -> None:
    known = knowledge()
    before = [row.clone() for row in known.honest]
    sent = collude(name, {}, known)
    assert len(sent) == HONEST + FAULTY
    for index, row in enumerate(before):
        assert sent[index] is known.honest[index]
        assert torch.equal(sent[index], row)
    for lie in sent[HONEST:]:
        assert (lie.shape, lie.dtype) == (before[0].shape, before[0].dtype)
        assert torch.equal(lie.nan_to_num(), sent[-1].nan_to_num())


@pytest.mark.parametrize("name", ATTACKS)
def test_an_attack_is_no_no_op(name: str) -> None:
    """What it sends is not the honest mean, and the plain mean over all moves; a mimic alone is an honest row."""
    known = knowledge()
    lie = forge(name, {}, known)
    honest = torch.stack(list(known.honest))
    assert any(torch.equal(lie, row) for row in honest) is (name == "mimic")
    moved = (mean(collude(name, {}, known)) - mean(known.honest)).norm()
    assert not float(moved) < 0.05


@pytest.mark.parametrize("name", ATTACKS)
def test_the_same_knowledge_gives_the_same_lie(name: str) -> None:
    first, again = forge(name, {}, knowledge()), forge(name, {}, knowledge())
    assert torch.equal(first.nan_to_num(), again.nan_to_num())


@pytest.mark.parametrize("name", ["adaptive", "alie_search", "gaussian"])
def test_attacks_take_any_spread_even_none(name: str) -> None:
    row = torch.ones(LENGTH)
    known = Knowledge(
        honest=[row, row, row], base=torch.zeros(LENGTH), generator=torch.Generator().manual_seed(0), colluders=1
    )
    assert bool(torch.isfinite(forge(name, {}, known)).all())


def test_sign_flip_and_inner_product_point_away_from_the_honest_update() -> None:
    known = knowledge()
    for name in ("sign_flip", "ipm"):
        assert float(forge(name, {}, known) @ mean(known.honest).float()) < 0.0


def test_a_little_is_enough_stays_within_its_deviations() -> None:
    known = knowledge()
    rows = torch.stack(list(known.honest))
    away = (forge("alie", {"tau": 1.5}, known) - rows.mean(dim=0)) / rows.std(dim=0, correction=0)
    torch.testing.assert_close(away, torch.full_like(away, -1.5), atol=1e-4, rtol=0)


@pytest.mark.parametrize("rule", [median, krum])
def test_the_line_search_does_at_least_as_much_harm_as_the_fixed_attack(rule: Aggregation) -> None:
    known = knowledge(rule=rule)
    centre = mean(known.honest)

    def harm(lie: Tensor) -> float:
        return float((rule([*known.honest, *[lie] * FAULTY]) - centre).norm())

    searched = harm(forge("alie_search", {"tau_max": 3.0, "steps": 30.0}, known))
    fixed = [harm(forge("alie", {"tau": tau}, known)) for tau in (0.1, 0.5, 1.0, 1.5, 3.0)]
    assert searched >= max(fixed) - 1e-5


def test_min_max_and_min_sum_hide_at_the_edge_of_what_the_honest_span() -> None:
    known = knowledge()
    rows = torch.stack(list(known.honest)).double()
    widest = torch.cdist(rows, rows).max()
    assert float((forge("min_max", {}, known).double() - rows).norm(dim=1).max() / widest) == pytest.approx(1, abs=1e-5)
    largest = max(float((row - rows).square().sum()) for row in rows)
    total = float((forge("min_sum", {}, known).double() - rows).square().sum())
    assert total / largest == pytest.approx(1.0, abs=1e-5)


def test_duplicates_win_krum_from_outside() -> None:
    known = knowledge()
    lie = forge("duplicate", {}, known)
    assert torch.equal(krum([*known.honest, *[lie] * FAULTY]).float(), lie)
    assert float((lie.double() - mean(known.honest)).norm()) > 0.3


def test_the_adaptive_attack_beats_the_fixed_ones_on_a_robust_rule() -> None:
    centre = mean(knowledge().honest)
    for rule in (median, krum):
        known = knowledge(rule=rule)
        worst = find_worst_lie(known, bound=2.0, steps=60)
        assert worst.error == pytest.approx(float((rule([*known.honest, *[worst.lie] * FAULTY]) - centre).norm()))
        assert worst.ratio == worst.error / 2.0
        for name in ("sign_flip", "gaussian", "min_max", "min_sum", "one_coordinate"):
            lie = forge(name, {}, knowledge())
            assert worst.error >= float((rule([*known.honest, *[lie] * FAULTY]) - centre).norm()) - 1e-6


def test_the_adaptive_attack_finds_that_a_mean_has_no_bound() -> None:
    worst = find_worst_lie(knowledge(rule=mean), bound=1.0, steps=5)
    assert worst.ratio > 1e5


def test_a_rule_that_raises_at_a_lie_is_no_success() -> None:
    def refusing(rows: Sequence[Tensor]) -> Tensor:
        if max(float(row.norm()) for row in rows) > 50.0:
            raise NotFinite(rule="refusing", rows=(0,))
        return torch.stack(list(rows)).mean(dim=0)

    assert 0.0 < find_worst_lie(knowledge(rule=refusing), steps=5).error <= 110.0


def test_a_rule_that_refuses_a_lie_is_no_success() -> None:
    def refusing(rows: Sequence[Tensor]) -> Tensor:
        result = mean(rows)
        return result * math.nan if float(result.norm()) > 100.0 else result

    assert find_worst_lie(knowledge(rule=refusing), steps=5).error <= 110.0


@pytest.mark.parametrize(
    ("name", "options", "sentence"),
    [
        ("sign_flop", {}, "did you mean 'sign_flip'"),
        ("label_flip", {}, "flips_labels=True"),
        ("alie", {"taul": 1.0}, "option of alie must be tau, got 'taul'"),
        ("alie_search", {"steps": 0.0}, "steps of alie_search must be a finite number of at least 1"),
        ("gaussian", {"deviation": -1.0}, "deviation of gaussian must be a finite number of at least 0, got -1.0"),
        ("ipm", {"epsilon": math.nan}, "epsilon of ipm must be a finite number, got nan"),
        ("mimic", {"victim": "w1"}, "victim of mimic must be a finite number, got 'w1'"),
    ],
)
def test_an_error_names_what_is_wrong(name: str, options: dict[str, float], sentence: str) -> None:
    with pytest.raises(ConfigurationError, match=sentence):
        check_attack(name, options)


def test_options_that_are_no_mapping_are_refused_by_name() -> None:
    for options in (None, ["scale"], "scale"):
        with pytest.raises(ConfigurationError, match="options of sign_flip must be a mapping of names to numbers, got"):
            check_attack("sign_flip", options)  # type: ignore[arg-type]


def test_an_attack_needs_somebody_honest_and_somebody_who_lies() -> None:
    nobody = Knowledge(honest=[], base=torch.zeros(3), generator=torch.Generator(), colluders=1)
    with pytest.raises(ConfigurationError, match="at least one honest contribution and one colluder"):
        forge("ipm", {}, nobody)


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors:UserWarning")
@pytest.mark.parametrize("name", ATTACKS)
def test_knowledge_that_does_not_fit_together_is_refused_by_name(name: str) -> None:
    """Most of these ended in a traceback; a base of one coordinate was stretched to all of them in silence."""
    known = knowledge()
    rows, base = list(known.honest), known.base
    wanted = f"honest contributions of {name}: wanted dense float rows .* of one length d >= 1 and one dtype, .*, got"
    for honest, got in (
        (
            [*rows[:3], rows[3][:7]],
            r"torch.float32 of shape \(7,\) in row 3, and torch.float32 of shape \(40,\) in row 0",
        ),
        ([*rows[:3], rows[3].half()], r"torch.float16 of shape \(40,\) in row 3, and torch.float32 of shape"),
        ([row.long() for row in rows], r"torch.int64 of shape \(40,\) in row 0"),
        ([row[:0] for row in rows], r"torch.float32 of shape \(0,\) in row 0"),
        (torch.zeros(3, 0), r"torch.float32 of shape \(0,\) in row 0"),
        ([row[None] for row in rows], r"torch.float32 of shape \(1, 40\) in row 0"),
        ([row.to("meta") for row in rows], r"torch.float32 of shape \(40,\) without data in row 0"),
        ([row.to_sparse() for row in rows], r"torch.float32 of shape \(40,\) \(torch.sparse_coo\) in row 0"),
        ([row.tolist() for row in rows], "list in row 0"),
        (rows[0], r"torch.float32 of shape \(40,\);"),
        (torch.nested.nested_tensor(rows), "a nested tensor;"),
        (set(rows), "set;"),
    ):
        with pytest.raises(LayoutError, match=f"^{wanted} {got}"):
            forge(name, {}, dataclasses.replace(known, honest=honest))
    for wrong, got in (
        (base[:1], r"torch.float32 of shape \(1,\)"),
        (base[:7], r"torch.float32 of shape \(7,\)"),
        (base[None], r"torch.float32 of shape \(1, 40\)"),
        (base.long(), r"torch.int64 of shape \(40,\)"),
        (None, "NoneType"),
    ):
        sentence = f"^base of {name}: wanted a float row of 40, as the honest contributions, got {got}; give the state"
        with pytest.raises(LayoutError, match=sentence):
            forge(name, {}, dataclasses.replace(known, base=wrong))


@pytest.mark.parametrize("name", ATTACKS)
def test_honest_contributions_may_come_as_one_tensor(name: str) -> None:
    from_list = collude(name, {}, knowledge())
    arena = torch.stack(list(knowledge().honest))
    from_arena = collude(name, {}, dataclasses.replace(knowledge(), honest=arena))
    assert len(from_arena) == HONEST + FAULTY
    for one, other in zip(from_list, from_arena, strict=True):
        assert torch.equal(one.nan_to_num(), other.nan_to_num())


def test_a_search_by_itself_checks_what_is_known_too() -> None:
    arena = torch.stack(list(knowledge().honest))
    assert find_worst_lie(dataclasses.replace(knowledge(), honest=arena), steps=3).error > 0.0
    with pytest.raises(LayoutError, match="base of adaptive: wanted a float row of 40"):
        find_worst_lie(dataclasses.replace(knowledge(), base=torch.zeros(1)), steps=3)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("name", [name for name in ATTACKS if name not in ("inf", "nan")])
def test_a_lie_is_finite_in_every_dtype_unless_it_is_meant_not_to_be(name: str, dtype: torch.dtype) -> None:
    """1e6 is an infinity in float16, which any screening rejects: another attack than the one that was named."""
    known = knowledge()
    narrow = dataclasses.replace(known, honest=[row.to(dtype) for row in known.honest], base=known.base.to(dtype))
    lie = forge(name, {}, narrow)
    assert lie.dtype == dtype
    assert bool(torch.isfinite(lie).all())
    if name == "one_coordinate":
        assert float(lie[0]) == min(float(torch.tensor(1e6, dtype=torch.float64).to(dtype)), torch.finfo(dtype).max)


def test_label_flipping_changes_every_target_and_no_test() -> None:
    workload = load_workload("digits-mlp")
    flipped = flip_labels(workload)
    assert bool((flipped.targets != workload.targets).all())
    assert set(flipped.targets.tolist()) == set(workload.targets.tolist())
    assert torch.equal(flipped.test_targets, workload.test_targets)
    assert torch.equal(flipped.inputs, workload.inputs)
    poisoned, honest = (
        WorkerSpec(name="w0", workload="digits-mlp", flips_labels=flip).build(0) for flip in (True, False)
    )
    assert torch.equal(poisoned._workload.targets, flipped.targets)
    assert torch.equal(honest._workload.targets, workload.targets)


def _forge(base: Tensor, *, worker: str = "w8", round_number: int = 1) -> Forge:
    layout = Layout(entries=(Entry(name="w", shape=(4,), dtype="float32"),))

    def payload(key: str, row: Tensor) -> tuple[Payload, ...]:
        return (Payload(key=key, ref=row.view(torch.uint8), nbytes=16),)

    template = Contribution(
        round=round_number, worker=worker, incarnation=0, payloads=payload(worker, base), layout="", digests=("",),
        mass=1.0, samples=1, loss=None, efficiency=1.0, accuracy=None,
    )  # fmt: skip
    return Forge(
        round=round_number, worker=worker, attack="ipm", options={"epsilon": 2.0},
        known=(payload("w0", base + 1), payload("w1", base + 3)), base=payload("state", base), layout=layout, seed=1,
        template=template, colluders=2,
    )  # fmt: skip


def test_colluders_send_one_row_each_under_its_own_name_and_another_state_makes_another(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made: list[str] = []
    monkeypatch.setattr(harness, "forge", lambda *words: made.append("") or forge(*words))
    attacker, zeros = harness.Attacker(), torch.zeros(4)
    first, second = (attacker.perform(_forge(zeros, worker=worker)) for worker in ("w8", "w9"))
    moved = attacker.perform(_forge(zeros + 10))  # as in another run on the same hosts: keys are the same
    assert isinstance(first, Contribution)
    assert isinstance(second, Contribution)
    assert isinstance(moved, Contribution)
    assert (first.worker, second.worker) == ("w8", "w9")
    assert first.digests == second.digests
    assert first.payloads[0].ref.view(torch.float32).tolist() == [-4.0] * 4
    assert moved.payloads[0].ref.view(torch.float32).tolist() == [6.0] * 4
    assert len(made) == 2


@pytest.mark.parametrize("rule", ["trimmed_mean", "krum", "geometric_median"])
def test_a_searching_liar_of_a_scenario_aims_at_the_rule_that_aggregates(rule: str) -> None:
    rows = 1.0 + 0.5 * torch.randn(9, 4, generator=torch.Generator().manual_seed(5))
    policy = Policy(rule=rule, topology="flat", faulty_max=2, outlier_factor=3.0)
    known = tuple((Payload(key=f"w{index}", ref=row.view(torch.uint8), nbytes=16),) for index, row in enumerate(rows))
    asked = dataclasses.replace(
        _forge(torch.zeros(4)), attack="adaptive", options={"steps": 60.0}, known=known, policy=policy
    )

    def harm(request: Forge) -> float:
        sent = harness.Attacker().perform(request)
        assert isinstance(sent, Contribution)
        lie = sent.payloads[0].ref.view(torch.float32)
        result = resolve_rows(
            [*rows, lie, lie], rule=rule, faulty_max=2, rejections_max=2, outlier_factor=policy.outlier_factor
        ).row
        return float((result - rows.mean(dim=0)).norm())

    assert harm(asked) > 1.02 * harm(dataclasses.replace(asked, policy=None))


def test_a_searching_liar_runs_in_a_scenario_and_stays_below_the_bound() -> None:
    scenario = parse_scenario(
        """
apiVersion: hqde.sim/v1
metadata: {name: searched}
seed: 4
system: {workers: 7, hosts: 3, faulty_max: 2, rule: krum}
workload: {rounds: 1, batch: 350, steps: 5}
faults:
  - {action: byzantine, target: minority-third, attack: {name: adaptive, steps: 10}, during: {rounds: [1, 1]}}
""",
        file="searched.yaml",
    )
    runs = {run.variant: run for run, _ in run_all(scenario, on="sim", variants=("as written",))}
    record = runs["as written"].rounds[0]
    assert record.byzantine == tuple(sorted(scenario.aim(0)))
    assert record.measured is not None
    assert record.bound is not None
    assert 0.0 < record.measured.error <= record.bound
