"""What is asked of whole systems: pairs of a shuffle, predictions, a tree planned again, rounds with faults.

Source: HQDE clauses 1.8, 2.1, 2.5, 3.5, 3.6, 3.9 and section 6.
Data only: nothing here computes.

The faults of a round go in with the request, since nothing can be injected in the middle of somebody else's call.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from hqde_ref.messages.components import Update
from hqde_ref.messages.vectors import Layout, message

__all__ = [
    "MapShuffle",
    "Pair",
    "Predict",
    "Predicted",
    "ReplanTree",
    "RoundEnded",
    "RoundFault",
    "RunRound",
    "Shuffled",
    "TreeReplanned",
    "Voice",
]


@message
class MapShuffle:
    """Map these items to pairs and group the pairs by parameter name (clause 2.1); nothing is reduced.

    Attributes:
        items: one a source; the layout says what each holds.
        mappers, reducers: how many of them share the work; it does not show in the groups.
    """

    items: tuple[Update, ...]
    layout: Layout
    mappers: int
    reducers: int


@message
class Pair:
    """One parameter of one item, with the item's source."""

    source: str
    tensor: Tensor


@message
class Shuffled:
    """Pairs by parameter name, in any order; and the items that were not mapped, by source, each with a reason."""

    groups: Mapping[str, tuple[Pair, ...]]
    unmapped: Mapping[str, str]


@message
class ReplanTree:
    """Plan the aggregation tree of ``workers`` leaves again, from measured times (clause 3.9).

    Attributes:
        seconds: what one merge of one child took at each host that can carry inner nodes.
    """

    workers: int
    branching: int
    seconds: Mapping[str, float]


@message
class TreeReplanned:
    """The plan as in ``TreePlanned``, and the host of every inner node by the node's name in ``parents``."""

    levels: tuple[int, ...]
    depth: int
    parents: Mapping[str, str | None]
    hosts: Mapping[str, str]


@message
class Voice:
    """What a member of the ensemble predicts: (samples, classes); None when it is dead. And its efficiency score."""

    worker: str
    outputs: Tensor | None
    efficiency: float = 1.0


@message
class Predict:
    """Combine what the members predict (clause 1.8): the mean, or, ``weighted``, the mean by efficiency."""

    voices: tuple[Voice, ...]
    weighted: bool


@message
class Predicted:
    """The ensemble's outputs, who was used for them, and who was left out and why. Without outputs: ``refused``."""

    outputs: Tensor | None
    used: tuple[str, ...] | None = None
    left_out: Mapping[str, str] | None = None
    refused: str | None = None


@message
class RoundFault:
    """One thing that goes wrong in a round. After it what died is started again, what hung or was slow is well.

    Attributes:
        role: ``"member"``; in a MapReduce round ``"mapper"`` or ``"reducer"``, in any other ``"inner"``: a node that
            aggregates, of the tree above all.
        index: which of them: members in the order of their ids, the others numbered from 0. A number beyond what the
            system has means that number modulo how many it has.
        kind: what befalls it when it is reached by its work: ``"dies"``, ``"hangs"``, ``"is slow"`` (its answer comes
            ``seconds`` later), ``"loses an answer"`` (on the way, so that it may be asked again). Or what a member
            does: ``"is stale"`` (it sends its contribution for an earlier round), ``"equivocates"`` (of its several
            updates it tells different receivers, or whoever asks again, different ones), ``"flips a bit"`` or
            ``"truncates"`` (its bytes are damaged after it made its digest, or on the way).
        after: how many pieces of work it does in the round before that; screening counts.
        seconds: see ``"is slow"``.
        bit: see ``"flips a bit"``: which one of all its contribution's bits, modulo their number.
    """

    role: str
    index: int
    kind: str
    after: int = 0
    seconds: float = 0.0
    bit: int = 0


@message
class RunRound:
    """Carry out one round: call the members up, aggregate what they send, tell everyone the result.

    Later requests to the same node are later rounds of the same system, with the same members.

    Attributes:
        number: of the round; from 1 on, growing.
        updates: what each member contributes; several of one member are for ``"equivocates"``, else the first counts.
        members: None: those that have an update.
        weighting: of a mean: ``"flat"`` (all alike) or ``"hierarchical"`` (softmax of accuracy).
        hosts: how many machines do the work of mappers, reducers and inner nodes, dealt in turn: the i-th of each role
            is on machine i modulo ``hosts``. Machines fail as a whole. Members have machines of their own.
        within_s: the round's deadline, in seconds from its start on the system's own clock.
    """

    number: int
    rule: str
    topology: str
    updates: tuple[Update, ...]
    layout: Layout
    within_s: float
    members: tuple[str, ...] | None = None
    weighting: str = "flat"
    faulty_max: int = 0
    branching: int = 3
    mappers: int = 2
    reducers: int = 2
    hosts: int = 3
    faults: tuple[RoundFault, ...] = ()


@message
class RoundEnded:
    """How a round ended. What a system cannot say is None, and the clauses that need it CANNOT_TELL.

    Attributes:
        result: None: the round was refused, for the reason in ``refused``.
        fired: for each fault of the request whether it took effect: a fault that did not proves nothing.
        seconds: from the start of the round to its end, on the system's own clock.
        most_received, most_sent: the largest number of vectors that one node of the tree took in, and gave out, for one
            piece of its work.
        coordinator_bytes: size of everything that the coordinator sent and received, but for handing over the result.
    """

    result: Mapping[str, Tensor] | None
    used: tuple[str, ...] | None = None
    rejected: Mapping[str, str] | None = None
    missing: Mapping[str, str] | None = None
    refused: str | None = None
    fired: tuple[bool, ...] | None = None
    seconds: float | None = None
    most_received: int | None = None
    most_sent: int | None = None
    coordinator_bytes: int | None = None
