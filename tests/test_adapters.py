"""Names of implementations, what adapters share, how peers are installed; and the peers themselves, where they are."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch

from hqde_ref.errors import ForeignError
from hqde_ref.messages import (
    Aggregate,
    Aggregated,
    Failed,
    Misused,
    Observe,
    Observed,
    PlanShare,
    PlanSplit,
    PlanTree,
    SharePlanned,
    SplitPlanned,
    Trained,
    TrainSteps,
    TreePlanned,
    Update,
)
from hqde_ref.runtimes.in_child import ForeignImplementation, Limits
from properties import implementations
from properties.adapters import common, install
from properties.adapters.peers import PEERS, PLACE, Peer
from properties.implementations import resolve

SAMPLES = "tests.foreign_samples"


def rows_of(*rows: Sequence[float], dtype: torch.dtype = torch.float32, **of_all: Any) -> tuple[Update, ...]:
    return tuple(
        Update(worker=f"w{i}", tensors={"x": torch.tensor(row, dtype=dtype)}, **of_all) for i, row in enumerate(rows)
    )


def flat(rule: str, updates: tuple[Update, ...], faulty_max: int = 0) -> Aggregate:
    return Aggregate(rule=rule, topology="flat", updates=updates, faulty_max=faulty_max)


# ------------------------------------------------------------------------------------------------ names


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("hqed", "implementation 'hqed': no implementation has this name (known: byzfl, flwr, geom-median, hqde, "),
        ("no_such_module:Thing", "implementation 'no_such_module:Thing': module 'no_such_module' does not import ("),
        (f"{SAMPLES}:Nothing", f"implementation '{SAMPLES}:Nothing': module '{SAMPLES}' has no 'Nothing'; check the "),
        ("cmd:", "implementation 'cmd:': no program; write cmd:./program --args."),
        ("cmd:./a 'b", 'implementation "cmd:./a \'b": cannot be split (No closing quotation); mend the quotes.'),
        ("cmd:./nothing", "implementation 'cmd:./nothing': could not be started: No such file or directory: ./nothing"),
    ],
)
def test_a_name_that_leads_nowhere_is_one_clear_line(text: str, sentence: str) -> None:
    with pytest.raises(ForeignError) as caught:
        resolve(text, in_process="Nothing" in text)
    assert str(caught.value).startswith(sentence)
    assert "\n" not in str(caught.value)


def test_a_peer_that_is_not_installed_says_what_to_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(PLACE, str(tmp_path))
    with pytest.raises(ForeignError) as caught:
        resolve("hqde")
    problem = "it is not installed: it has an environment of its own, which is not there yet; run make peers."
    assert str(caught.value) == f"implementation 'hqde': {problem}"


def test_ours_runs_in_process_and_module_attribute_in_a_guarded_child(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(implementations, "names", lambda: {"reference": f"{SAMPLES}:Behaving"})
    assert not isinstance(resolve("reference"), ForeignImplementation)
    assert not isinstance(resolve(f"{SAMPLES}:Behaving", in_process=True), ForeignImplementation)
    with resolve(f"{SAMPLES}:factory", python=sys.executable) as foreign:  # type: ignore[attr-defined]
        assert isinstance(foreign, ForeignImplementation)
        assert foreign.name == "behaving"


def test_a_command_line_is_split_as_a_shell_does() -> None:
    program = Path(__file__).with_name("misbehaving_program.py")
    implementation = resolve(f"cmd:{sys.executable} -S '{program}'")
    try:
        assert (implementation.name, implementation.version) == ("misbehaving", "2")
    finally:
        implementation.stop()


def test_every_peer_and_the_reference_have_a_name() -> None:
    assert {"reference", "hqde", "byzfl", "geom-median", "flwr"} <= set(implementations.names())


# ------------------------------------------------------------------------------------------------ what adapters share


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A package that refuses on purpose, and one call deeper falls over."""
    (tmp_path / "peculiar.py").write_text(
        "def refuse():\n    raise ValueError(\n        'b must be 2 or more')\n"
        "def fall_over():\n    return [][1]\n"
        "def call(function):\n    return function()\n"
    )
    (tmp_path / "peculiar_package").mkdir()
    (tmp_path / "peculiar.py").rename(tmp_path / "peculiar_package" / "__init__.py")
    monkeypatch.syspath_prepend(str(tmp_path))
    yield importlib.import_module("peculiar_package")
    del sys.modules["peculiar_package"]


def test_a_raise_in_the_packages_own_code_is_a_refusal(package: Any) -> None:
    reply = common.answer("peculiar_package", lambda _: package.refuse(), None)
    assert reply == Misused(error="ValueError", sentence="b must be 2 or more")


def test_what_a_package_falls_over_is_not_a_refusal(package: Any) -> None:
    with pytest.raises(IndexError):
        common.answer("peculiar_package", lambda _: package.fall_over(), None)


def test_a_raise_outside_the_package_is_not_its_refusal(package: Any) -> None:
    def ours() -> None:
        raise ValueError("not the package")

    with pytest.raises(ValueError, match="not the package"):
        common.answer("peculiar_package", lambda _: package.call(ours), None)


def test_what_a_package_cannot_be_asked_is_inexpressible() -> None:
    integers = rows_of([1, 2], dtype=torch.int64)
    reply = common.answer("p", lambda _: common.as_vectors(integers, "p"), None)  # type: ignore[arg-type, return-value]
    assert reply == Misused(error=common.INEXPRESSIBLE, sentence="p takes vectors of floats, got torch.int64")


def test_vectors_are_cut_into_the_tensors_they_were_made_of() -> None:
    update = Update(worker="w", tensors={"a": torch.randn(2, 3), "b": torch.randn(()), "c": torch.randn(0)})
    (vector,) = common.as_vectors([update], "p")
    back = common.from_vector(vector, update)
    assert list(back) == ["a", "b", "c"]
    assert all(torch.equal(back[name], tensor) for name, tensor in update.tensors.items())


def test_other_names_than_the_first_are_inexpressible_by_place() -> None:
    updates = (*rows_of([1.0]), Update(worker="odd", tensors={"y": torch.zeros(1)}))
    with pytest.raises(common.Inexpressible, match="p takes tensors by place; odd has other names than the first"):
        common.in_order(updates, "p")


def test_the_stand_in_swallows_what_peers_do_with_torchvision_on_import(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", "before")
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setitem(sys.modules, "torchvision", None)  # the real one does not import
    common.stand_in_for("torchvision")
    try:
        transforms = importlib.import_module("torchvision.transforms")
        datasets = importlib.import_module("torchvision").datasets
        assert transforms.Compose([transforms.ToTensor()]) is transforms.InterpolationMode.BILINEAR
        assert datasets.MNIST is datasets.CIFAR10
        assert os.environ["PYTHONPATH"] == os.pathsep.join([str(common.STAND_INS), "before"])
    finally:
        for name in [name for name in sys.modules if name.startswith("torchvision")]:
            del sys.modules[name]


# ------------------------------------------------------------------------------------------------ installing peers


def failing(name: str) -> Callable[[Peer], str]:
    def check(peer: Peer) -> str:
        if peer.name == name:
            raise ForeignError(implementation=name, problem="no wheel", do="wait")
        return "1.0"

    return check


@pytest.mark.parametrize(("broken", "code"), [("byzfl", 0), ("hqde", 1), ("nobody", 0)])
def test_a_peer_that_fails_stops_no_other_and_only_hqde_is_needed(
    broken: str, code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(install, "install", lambda peer: None)
    monkeypatch.setattr(install, "check", failing(broken))
    assert install.main([]) == code
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(PEERS)
    for name, line in zip(PEERS, lines, strict=True):
        failed = f"{name}: does not work (implementation '{name}': no wheel; wait.)"
        assert line == (failed if name == broken else f"{name} 1.0: works")


def test_an_unknown_peer_is_bad_input(capsys: pytest.CaptureFixture[str]) -> None:
    assert install.main(["hqed"]) == 4
    assert capsys.readouterr().out == "hqed: no such peer; there are hqde, byzfl, geom-median, flwr\n"


def test_what_peers_install_is_pinned_exactly() -> None:
    pins = [requirement for peer in PEERS.values() for requirement in peer.requirements]
    assert all(pin.count("==") == 1 for pin in pins)


# ------------------------------------------------------------------------------------------------ the peers themselves


def needs(name: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(not PEERS[name].python().exists(), reason=f"{name} is not installed: run make peers")


def opened(name: str, limits: Limits | None = None) -> ForeignImplementation:
    implementation = resolve(name, limits=limits)
    assert isinstance(implementation, ForeignImplementation)
    return implementation


def result_of(reply: object) -> list[float]:
    assert isinstance(reply, Aggregated), reply
    assert reply.result is not None
    return [round(value, 4) for value in reply.result["x"].tolist()]


SPREAD = rows_of([0.0], [1.0], [2.0], [3.0], [100.0])


@needs("byzfl")
def test_byzfl_aggregates_by_every_rule_that_it_names() -> None:
    with opened("byzfl") as byzfl:
        assert byzfl.rules is not None
        results = {rule: result_of(byzfl.start().perform(flat(rule, SPREAD, 1))) for rule, _ in sorted(byzfl.rules)}
        assert results["weighted_mean"] == [21.2]
        assert results["coordinate_median"] == results["trimmed_mean"] == [2.0]
        assert results["multi_krum"] == results["minimum_diameter_mean"] == [1.5]
        assert results["mean_around_median"] == results["smallest_spread_mean"] == [1.5]
        refused = byzfl.start().perform(flat("krum", SPREAD, 3))
        assert refused == Misused(error="ValueError", sentence="Cannot tolerate 2f ≥ n. Got f=3, n=5")
        weighed = (*rows_of([1.0], mass=2.0), *rows_of([1.0]))
        assert byzfl.start().perform(flat("weighted_mean", weighed)).error == common.INEXPRESSIBLE


@needs("geom-median")
def test_geom_median_takes_all_tensors_of_a_contribution_together() -> None:
    with opened("geom-median") as package:
        assert package.rules == {("geometric_median", "flat")}
        (result,) = result_of(package.start().perform(flat("geometric_median", SPREAD, 1)))
        assert result == pytest.approx(2.0, abs=1e-2)


@needs("flwr")
def test_flwr_aggregates_by_every_rule_that_it_names() -> None:
    seven = rows_of([0.0], [1.0], [2.0], [3.0], [4.0], [5.0], [100.0])
    with opened("flwr") as flwr:
        assert flwr.rules is not None
        results = {rule: result_of(flwr.start().perform(flat(rule, seven, 1))) for rule, _ in sorted(flwr.rules)}
        assert results["coordinate_median"] == results["trimmed_mean"] == [3.0]
        assert results["krum"] != [100.0]
        assert results["multi_krum"] == [2.5]
        refused = flwr.start().perform(flat("bulyan", seven[:6], 1))
        assert refused.sentence.startswith("The Bulyan aggregation requires")


@pytest.fixture(scope="module")
def hqde() -> Iterator[ForeignImplementation]:
    with opened("hqde") as implementation:
        yield implementation


@needs("hqde")
def test_hqde_plans_trees_splits_and_shares_by_its_own_code(hqde: ForeignImplementation) -> None:
    node = hqde.start()
    tree = node.perform(PlanTree(workers=5, branching=2))
    assert isinstance(tree, TreePlanned)
    assert (tree.levels, tree.depth) == ((1, 2, 3, 5), 3)
    assert tree.parents is not None
    assert sum(parent is None for parent in tree.parents.values()) == 1
    assert node.perform(PlanSplit(samples=10, workers=3)) == SplitPlanned(slices=((0, 4), (4, 7), (7, 10)))
    assert node.perform(PlanSplit(samples=2, workers=3)) == SplitPlanned(slices=((0, 1), (1, 2)))
    assert node.perform(PlanShare(workers=3, gpus=2)) == SharePlanned(share=2 / 3)
    assert node.perform(PlanTree(workers=5, branching=0)).reason.startswith("ZeroDivisionError")


@needs("hqde")
def test_hqde_workers_are_driven_through_their_own_train_step(hqde: ForeignImplementation) -> None:
    node = hqde.start()
    observed = node.perform(Observe(losses=(1.0, 1.0)))
    assert isinstance(observed, Observed)
    assert observed.scores == pytest.approx((0.9, 0.82))  # 0.8 s + 0.2 / (1 + loss), not the document's
    inputs, targets = torch.tensor([[1.0, 0.0], [0.0, 1.0]]), torch.tensor([0, 1])
    weight, bias = torch.zeros(2, 2), torch.zeros(2)
    request = TrainSteps(inputs=inputs, targets=targets, weight=weight, bias=bias, steps=1, rate=0.5)
    trained = node.perform(request)
    assert isinstance(trained, Trained)
    assert torch.equal(trained.weight, torch.tensor([[0.125, -0.125], [-0.125, 0.125]]))


@needs("hqde")
def test_hqde_rejects_one_of_four_equal_contributions(hqde: ForeignImplementation) -> None:
    reply = hqde.start().perform(flat("geometric_median", rows_of(*[[1.0, 2.0]] * 4), 1))
    assert isinstance(reply, Aggregated)
    assert (reply.used, list(reply.rejected or ())) == (("w1", "w2", "w3"), ["w0"])


@needs("hqde")
@pytest.mark.xdist_group("ray")
def test_hqde_eats_all_memory_with_a_branching_factor_of_one_and_the_guard_ends_it_and_its_ray() -> None:
    with opened("hqde", Limits(memory_mib=2048, call_within_s=100)) as hqde:
        node = hqde.start()
        one = Aggregate(rule="weighted_mean", topology="tree", updates=rows_of([3.0]), faulty_max=0, branching=2)
        assert result_of(node.perform(one)) == [3.0]
        (child,) = hqde._host.running
        started = psutil.Process(child.program()).children(recursive=True)
        assert {"raylet", "gcs_server"} <= {process.name() for process in started}
        reply = node.perform(PlanTree(workers=1_000_000, branching=1))
        assert isinstance(reply, Failed)
        assert reply.reason.startswith("ended by the guard: memory limit of 2048 MiB exceeded (")
        assert [process for process in started if process.is_running()] == []
        assert node.perform(PlanTree(workers=2, branching=2)).levels == (1, 2)
