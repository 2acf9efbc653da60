"""The clauses of HQDE as data: what is promised, how firmly, and in which section. The only registry of them.

Source: part 2 of the HQDE document as this project reads it; En marks an erratum of that document. Levels are those of
RFC 2119. An id is never used again for something else.
"""

from __future__ import annotations

from typing import Literal, TypeAlias

from hqde_ref.messages import message

__all__ = ["CLAUSES", "SPEC", "Clause", "Level", "find_clause"]

SPEC = "hqde-part-2/1"

Level: TypeAlias = Literal["MUST", "SHOULD", "MAY"]


@message
class Clause:
    """One numbered promise. ``section`` is the title of its section, ``statement`` one reading of it in a breath."""

    id: str
    level: Level
    section: str
    statement: str


_EVERYWHERE = "0. Everywhere"
_WORKERS = "1. Workers, GPUs and data"
_STORE = "2. MapReduce and the weight store"
_TREE = "3. The aggregation tree"
_BYZANTINE = "4. Byzantine fault tolerance"
_BALANCING = "5. Load balancing"
_ROUNDS = "6. Rounds under faults"


def _must(section: str, number: str, statement: str) -> Clause:
    return Clause(id=number, level="MUST", section=section, statement=statement)


def _should(section: str, number: str, statement: str) -> Clause:
    return Clause(id=number, level="SHOULD", section=section, statement=statement)


CLAUSES: tuple[Clause, ...] = (
    _must(_EVERYWHERE, "0.1", "A call leaves the bits of its inputs (contributions, metadata, lists) as they were."),
    _must(_EVERYWHERE, "0.2", "A result has the names, shapes and dtypes of the layout that the round declared."),
    _must(
        _EVERYWHERE,
        "0.3",
        "The order in which contributions are listed or arrive leaves no trace in the result; ties are broken by "
        "content, then by worker id.",
    ),
    _must(
        _EVERYWHERE,
        "0.4",
        "Every member of a round is used, rejected for a readable reason, or missing: exactly one of these, and nobody "
        "is lost or counted twice in silence.",
    ),
    _must(
        _EVERYWHERE,
        "0.5",
        "NaN and infinities never reach the result: who sends one is rejected as not finite, and the round goes on.",
    ),
    _must(
        _EVERYWHERE,
        "0.6",
        "A contribution of other names, shapes or dtypes than the layout is rejected as misshapen; nothing is "
        "broadcast, padded or dropped key by key.",
    ),
    _must(
        _EVERYWHERE,
        "0.7",
        "A nonsensical setting (n < 1, b < 2 or no integer, more replicas than stores, an unknown rule, 3f >= n) is "
        "refused at once by an error that says what was wanted and what came; nothing loops or hangs.",
    ),
    _must(
        _EVERYWHERE,
        "0.8",
        "Integer and boolean entries keep their type and become the coordinate-wise lower median, weighted only under "
        "a weighted mean.",
    ),
    _must(_EVERYWHERE, "0.9", "Half-precision entries are accumulated in float32 or wider and rounded once."),
    _should(
        _EVERYWHERE,
        "0.10",
        "The same contributions give the same bits on every topology, in every order, on every runtime.",
    ),
    _must(
        _EVERYWHERE,
        "0.11",
        "A second round on the same object gives what a fresh object would: no state leaks between rounds unless a "
        "clause names it.",
    ),
    _must(
        _EVERYWHERE,
        "0.12",
        "A component leaves alone what it did not start (sessions, threads, random state) and releases what it did.",
    ),
    _must(
        _EVERYWHERE,
        "0.13",
        "Equal contributions give that contribution, whatever the topology, the masses and the defaults.",
    ),
    _must(
        _WORKERS,
        "1.1",
        "All W workers can be placed on G GPUs at once: a share is 0 without GPUs, floor(G/W) whole GPUs if W <= G, "
        "else floor(10^4/k)/10^4 with k = ceil(W/G) (E1).",
    ),
    _must(
        _WORKERS,
        "1.2",
        "A worker that cannot be placed within a time limit is reported by name; start-up never waits for ever.",
    ),
    _must(
        _WORKERS,
        "1.3",
        "A batch is cut into one slice per worker: contiguous, in order, disjoint, covering. Who gets an empty slice "
        "does not train and reports no loss (E2).",
    ),
    _must(
        _WORKERS,
        "1.4",
        "Training is the plain PyTorch step: after k steps the weights have the bits of a single-process loop's.",
    ),
    _must(
        _WORKERS,
        "1.5",
        "Efficiency starts at 1 and follows s <- max(0.1, 0.99 s + 0.01/(1 + loss)), within [0.1, 1]; a negative loss "
        "counts as 0, and a loss that is not finite gains nothing and takes no step (E3).",
    ),
    _must(
        _WORKERS,
        "1.6",
        "A worker's death does not end training: the rest go on, it returns with the last published weights, and its "
        "data of that round counts as missing.",
    ),
    _should(_WORKERS, "1.7", "Saving and loading gives the same run as going on without a stop."),
    _should(
        _WORKERS,
        "1.8",
        "The ensemble predicts the mean, or efficiency-weighted mean, of its members; a dead one or a NaN spoils "
        "nothing.",
    ),
    _must(
        _STORE,
        "2.1",
        "Map emits one pair per parameter of every item and shuffle groups them by name; no pair is lost or doubled.",
    ),
    _must(
        _STORE,
        "2.2",
        "Reduce 'flat' is the mean, 'hierarchical' the mean weighted by the softmax of accuracy (E4).",
    ),
    _must(_STORE, "2.3", "Numbers of mappers and reducers, and how work is partitioned, do not change the result."),
    _must(
        _STORE,
        "2.4",
        "An accuracy is a number in [0, 1]; where the weighting needs one, a contribution without it is rejected (E5).",
    ),
    _must(_STORE, "2.5", "The work of a mapper or reducer that dies is done again elsewhere, with the same result."),
    _must(
        _STORE,
        "2.6",
        "A key lives on R stores; a write is acknowledged by W of them and a read asks R_q of them, with W + R_q > R.",
    ),
    _must(
        _STORE,
        "2.7",
        "An acknowledged write survives every fault that leaves a read quorum; stale and corrupted replicas are "
        "detected, and reads repair them.",
    ),
    _must(_STORE, "2.8", "Any string is a valid key, apart from replicas' names; an unknown key is an error."),
    _should(_STORE, "2.9", "Keys are placed deterministically and evenly, and few move when a store comes or goes."),
    _must(
        _TREE,
        "3.1",
        "The levels have n, ceil(n/b), ..., 1 nodes; the depth is the least L with b^L >= n in integers (E6).",
    ),
    _must(
        _TREE,
        "3.2",
        "The plan is an arborescence: one root, n leaves, one parent each, at most b children, longest path L.",
    ),
    _must(
        _TREE,
        "3.3",
        "A weighted mean up the tree equals the flat one for every n and b: the mass travels with the vector (E7).",
    ),
    _must(_TREE, "3.4", "Under a weighted mean the importance of a contribution reaches the result, at every level."),
    _must(
        _TREE,
        "3.5",
        "A node receives at most b messages and sends one; vectors do not pass through the coordinator.",
    ),
    _must(
        _TREE,
        "3.6",
        "The work of an inner node that dies, hangs or is late is done elsewhere within the deadline, or its subtree "
        "is reported missing.",
    ),
    _must(
        _TREE,
        "3.7",
        "A robust rule applied node by node tolerates one fault less than the cheapest way to own the root; a plan "
        "that promises more is refused (E8).",
    ),
    _must(
        _TREE,
        "3.8",
        "There is a hierarchical way that keeps f < n/3 (sharded coordinates, additive Gram matrices); its result is "
        "the flat rule's.",
    ),
    _should(_TREE, "3.9", "A plan can be remade from measured times; it is still a tree as promised."),
    _must(_BYZANTINE, "4.1", "Every f with 3f < n is tolerated, that is up to floor((n - 1)/3) (E9)."),
    _must(
        _BYZANTINE,
        "4.2",
        "Faults may be mixed while 2 f_byzantine + f_absent < n and the replies suffice for the rule; who is rejected "
        "as Byzantine counts once.",
    ),
    _must(
        _BYZANTINE,
        "4.3",
        "An outlier score tells how far a contribution stands from the rest in robust units: finite even where the "
        "rest agree, 0 for an identical one, and highest for one that lies much farther than all others (E10).",
    ),
    _must(
        _BYZANTINE,
        "4.4",
        "Absent and outlier-rejected members together are at most f, and nobody has to be rejected: identical "
        "contributions are all kept.",
    ),
    _must(_BYZANTINE, "4.5", "A rule keeps its proven bound on every input; one without a proof is not called robust."),
    _must(_BYZANTINE, "4.6", "Exact fit: if the honest contributions are equal, the result is that contribution."),
    _must(
        _BYZANTINE,
        "4.7",
        "The geometric median is one, as certified from the output alone: also where the optimum is an input, and at "
        "any scale from 1e-30 to 1e30 (E11).",
    ),
    _must(_BYZANTINE, "4.8", "Each rule keeps the symmetries that are listed for it."),
    _must(
        _BYZANTINE,
        "4.9",
        "Too few usable contributions give a refusal that says how many were needed, never a weaker rule in silence.",
    ),
    _must(
        _BYZANTINE,
        "4.10",
        "What a worker says of itself gives it no more influence under a robust rule than one contribution has.",
    ),
    _should(_BYZANTINE, "4.11", "A reliability history starts neutral, is bounded, and excludes nobody by itself."),
    _must(_BYZANTINE, "4.12", "A verdict names who was rejected, why, and with what score."),
    _must(
        _BALANCING,
        "5.1",
        "Suitability is 0.4 success rate + 0.3 max(0, 1 - load) + 0.2 max(0, 1 - min(time/10 s, 1)) + 0.1 capability "
        "match, within [0, 1] and monotone for any input (E12).",
    ),
    _must(
        _BALANCING,
        "5.2",
        "No node without a required capability is chosen while one has it; if none has, that is an error (E13).",
    ),
    _must(_BALANCING, "5.3", "Dead nodes get no task and can be removed; with none left scheduling raises."),
    _must(_BALANCING, "5.4", "Rebalancing starts when max - min load exceeds the threshold, strictly (E14)."),
    _must(
        _BALANCING,
        "5.5",
        "Rebalancing moves work: total load stays, imbalance never grows, divisible load becomes even.",
    ),
    _should(
        _BALANCING,
        "5.6",
        "Least-loaded assignment ends within 2 - 1/m of the optimum on m nodes, longest-first within 4/3 - 1/(3m).",
    ),
    _must(_BALANCING, "5.7", "Success, load and time are measured from what ran; a new node starts neutral."),
    _must(_ROUNDS, "6.1", "A round ends by its deadline, with a verdict or a refusal."),
    _must(_ROUNDS, "6.2", "A (round, worker) counts at most once, whatever is retried, doubled, late or replayed."),
    _must(_ROUNDS, "6.3", "A contribution for another round is rejected as stale."),
    _must(
        _ROUNDS,
        "6.4",
        "With crashes within the budget the result aggregates what arrived, and says who is missing.",
    ),
    _must(_ROUNDS, "6.5", "Once faults stop, a round completes with everyone within a bounded time, without help."),
    _must(
        _ROUNDS,
        "6.6",
        "A worker that tells different receivers different things counts as one Byzantine worker at most.",
    ),
    _must(
        _ROUNDS,
        "6.7",
        "What can be noticed (too few replies, too few usable, a broken certificate) is refused, never returned as "
        "good; beyond that there is no promise.",
    ),
    _must(_ROUNDS, "6.8", "Corrupted bytes are detected before they are aggregated."),
)

_BY_ID = {clause.id: clause for clause in CLAUSES}


def find_clause(number: str) -> Clause | None:
    """The clause of that id, or None."""
    return _BY_ID.get(number)
