"""Section 3 at work: what the nodes of a tree take in, what becomes of one that fails, and trees planned again."""

from __future__ import annotations

import dataclasses

import networkx as nx
import numpy as np
from hypothesis import strategies as st

from hqde_ref.messages import ReplanTree, RoundEnded, RoundFault, RunRound, TreeReplanned
from properties.declaring import Way, law
from properties.laws import ask, require_bits, said
from properties.liars import as_updates, flat_layout
from properties.oracles import level_sizes
from properties.running import (
    ROBUST_RUNS,
    faults_of_nodes,
    mean_round,
    members_rounds,
    require_accounts,
    require_in_time,
    require_mean_of_used,
    result_of_round,
    round_of,
    run,
)
from properties.strategies import Round, name_workers
from properties.subject import Subject

_BRANCHING = st.integers(2, 5)


@law(needs=(RunRound,), case=members_rounds(least=2, most=14), branching=_BRANCHING)
def test_a_node_takes_in_no_more_than_its_children(implementation: Subject, case: Round, branching: int) -> None:
    """No node of the tree receives more than b vectors for its work, and each sends one.

    Clause: 3.5. Catches: planted.SendsEverythingToTheRoot, planted.SendsTwice.
    """
    ended = run(implementation, dataclasses.replace(mean_round(case, "tree"), branching=branching))
    result_of_round(ended)
    received = said(ended.most_received, "how many vectors a node received")
    sent = said(ended.most_sent, "how many vectors a node sent")
    assert received <= branching, f"a node received {received} vectors, b is {branching}"
    assert sent <= 1, f"a node sent {sent} vectors"


def _bytes_of(implementation: Subject, workers: int, size: int, branching: int) -> int:
    """What went through the coordinator in a round over vectors of so many float64 values."""
    layout = flat_layout(size, "float64")
    updates, _ = as_updates(layout, name_workers(workers), np.ones((workers, size)) * np.arange(workers)[:, None])
    case = Round(layout=layout, updates=updates, faulty_max=0)
    ended: RoundEnded = run(implementation, dataclasses.replace(mean_round(case, "tree"), branching=branching))
    result_of_round(ended)
    return said(ended.coordinator_bytes, "how many bytes went through the coordinator")


@law(needs=(RunRound,), workers=st.integers(2, 9), branching=_BRANCHING)
def test_vectors_do_not_pass_through_the_coordinator(implementation: Subject, workers: int, branching: int) -> None:
    """What the coordinator handles does not grow with the vectors: not even by one of them.

    Clause: 3.5. Catches: planted.CoordinatorCarriesAVector.
    """
    small, large = 8, 4096
    grown = _bytes_of(implementation, workers, large, branching) - _bytes_of(implementation, workers, small, branching)
    vector = 8 * (large - small)
    assert grown < vector, f"each vector grew by {vector} bytes, and what went through the coordinator by {grown}"


@law(needs=(RunRound,), case=members_rounds(least=4), fault=faults_of_nodes("inner"), branching=_BRANCHING)
def test_the_work_of_a_failed_inner_node_is_done_elsewhere_or_missing(
    implementation: Subject, case: Round, fault: RoundFault, branching: int
) -> None:
    """An inner node that dies, hangs or is late stops no round; nobody is lost in silence, nobody counts twice.

    The result is the mean of those used; the others are reported missing; all by the deadline.

    Clauses: 3.6, 6.2. Catches: planted.LosesASubtreeInSilence, planted.CountsRedoneWorkTwice, planted.WaitsForTheHung,
    planted.RefusesWhenANodeFails.
    """
    request = dataclasses.replace(mean_round(case, "tree", faults=[fault]), branching=branching)
    ended = run(implementation, request)
    require_in_time(ended, request)
    require_mean_of_used(ended, case.updates, case)
    rejected = said(ended.rejected, "who was rejected")
    assert not rejected, f"an inner node {fault.kind}, and {sorted(rejected)[0]} was rejected for it"


@law(
    needs=(RunRound,),
    case=members_rounds(least=4, faulty_max=1),
    way=st.sampled_from(ROBUST_RUNS),
    fault=faults_of_nodes("inner", after_most=4),
)
def test_a_failed_node_leaves_no_trace_in_a_robust_result(
    implementation: Subject, case: Round, way: Way, fault: RoundFault
) -> None:
    """Where a node fails and everybody is used all the same, the result has the bits that it has where none fails.

    Clauses: 3.6, 3.8. Catches: planted.LosesAShard.
    """
    troubled = run(implementation, round_of(case, way, faults=[fault]))
    quiet = run(implementation, round_of(case, way))
    if require_accounts(troubled, case.workers) == require_accounts(quiet, case.workers):
        require_bits(result_of_round(troubled), result_of_round(quiet), f"{fault.role} {fault.index} {fault.kind}")
    else:
        assert troubled.missing, f"{fault.role} {fault.index} {fault.kind}: others were used, and nobody is missing"


@law(needs=(RunRound,), case=members_rounds(least=4), branching=_BRANCHING, role=st.sampled_from(("inner", "mapper")))
def test_where_every_machine_hangs_the_round_is_refused_in_time(
    implementation: Subject, case: Round, branching: int, role: str
) -> None:
    """With nobody left to do the work the round does not wait for ever: it is refused by its deadline, with a reason.

    Clauses: 6.1, 6.7. Catches: planted.WaitsForTheHung, planted.EndsWithNothing, planted.GuessesAResult.
    """
    faults = [RoundFault(role=role, index=index, kind="hangs") for index in range(2)]
    request = mean_round(case, "tree" if role == "inner" else "mapreduce", faults=faults)
    request = dataclasses.replace(request, branching=branching, hosts=2, mappers=2)
    ended = run(implementation, request)
    require_in_time(ended, request)
    assert ended.result is None, "every machine hung before it did its work, and yet there is a result"


# ------------------------------------------------------------------------------------------------ plans made again


@st.composite
def _measured(draw: st.DrawFn) -> ReplanTree:
    """Some hosts of like speed, and now and then one on which a merge takes longer than the whole tree elsewhere."""
    workers, branching = draw(st.integers(1, 60)), draw(_BRANCHING)
    paces = draw(st.lists(st.sampled_from((0.5, 1.0, 1.5, 2.0)), min_size=1, max_size=5))
    seconds = {f"h{index}": pace for index, pace in enumerate(paces)}
    if draw(st.booleans()):
        seconds[draw(st.sampled_from(("a slow one", "z slow one")))] = 2.0 * 2.0 * sum(level_sizes(workers, branching))
    return ReplanTree(workers=workers, branching=branching, seconds=seconds)


@law(needs=(ReplanTree,), request=_measured())
def test_a_plan_made_again_is_still_a_tree(implementation: Subject, request: ReplanTree) -> None:
    """Whatever the hosts' times, the levels are those of clause 3.1 and the plan is an arborescence with n leaves.

    Clauses: 3.9, 3.2. Catches: planted.ReplansAnotherTree.
    """
    planned = ask(implementation, request, TreeReplanned)
    wanted = level_sizes(request.workers, request.branching)
    assert list(planned.levels) == wanted, f"the levels are {list(planned.levels)}, wanted {wanted}"
    assert planned.depth == len(wanted) - 1, f"depth {planned.depth} with {len(wanted)} levels"
    graph: nx.DiGraph[str] = nx.DiGraph()
    graph.add_nodes_from(planned.parents)
    graph.add_edges_from((parent, child) for child, parent in planned.parents.items() if parent is not None)
    assert nx.is_arborescence(graph), "the parents do not make a tree"
    leaves = [node for node in graph if graph.out_degree(node) == 0]
    assert len(leaves) == request.workers, f"the tree has {len(leaves)} leaves for {request.workers} workers"
    fullest = max(graph, key=graph.out_degree)
    assert graph.out_degree(fullest) <= request.branching, f"{fullest} has {graph.out_degree(fullest)} children"


@law(needs=(ReplanTree,), request=_measured())
def test_inner_nodes_move_off_slow_hosts(implementation: Subject, request: ReplanTree) -> None:
    """Every inner node has a host, and none the one that would take longer for a merge than another for all of them.

    Clause: 3.9. Catches: planted.LeavesItOnTheSlow, planted.ForgetsANodeWhenReplanning.
    """
    planned = ask(implementation, request, TreeReplanned)
    inner = {parent for parent in planned.parents.values() if parent is not None}
    assert set(planned.hosts) == inner, (
        f"hosts are given to {sorted(planned.hosts)}, the inner nodes are {sorted(inner)}"
    )
    strange = sorted(set(planned.hosts.values()) - set(request.seconds))
    assert not strange, f"{strange[0]} was not measured, but got an inner node"
    fastest = min(request.seconds.values())
    edges = sum(parent is not None for parent in planned.parents.values())
    for host, seconds in request.seconds.items():
        carried = sorted(node for node, where in planned.hosts.items() if where == host)
        if seconds > edges * fastest:
            assert not carried, (
                f"{host} takes {seconds:g} s a merge and carries {carried[0]}; all take {edges * fastest:g}"
            )
