"""Run one property on one implementation, and say what became of it.

Source: docs/design.md, "Statuses". The same seed gives the same examples: no example database, no clock but the limit
on a property's time, a stream of its own for each property.
"""

from __future__ import annotations

import hashlib
import time
import traceback
from collections.abc import Callable
from typing import Any, Final

import hypothesis
from hypothesis import HealthCheck, Phase, Verbosity, given, settings
from hypothesis.errors import Flaky, HypothesisException, Unsatisfiable, UnsatisfiedAssumption
from hypothesis.strategies import SearchStrategy

from hqde_ref.messages import Misused, RoundEnded, StoreFaulted, message
from properties.outcomes import Outcome, Status
from properties.showing import show_reply, show_request
from properties.subject import Asked, CannotTell, Enough, Subject
from properties.suite import PropertyCase, why_unsupported
from simulator.threads import one_thread

__all__ = ["PROFILES", "Profile", "examine"]


@message
class Profile:
    """How hard to search: examples a property, and seconds a property may take before it stops where it is."""

    examples: int
    within_s: float
    shrink: bool = True


LEAST_EXAMPLES: Final = 3  # judged to the end, not rejected; a law that held for fewer says little

PROFILES: Final = {
    "smoke": Profile(examples=8, within_s=10.0),
    "standard": Profile(examples=40, within_s=20.0),
    "deep": Profile(examples=600, within_s=900.0),
}


@message
class _Failure:
    """A failing example: what was claimed, and what had been asked by then."""

    because: str
    asked: tuple[Asked, ...]

    @property
    def size(self) -> int:
        return len(_show(self.asked))


class _Record:
    """What is noted while a property runs.

    Attributes:
        judged: examples that held or failed, up to the first failure; rejected: those from which nothing was learnt.
        unasked: what the implementation said to the last rejected one.
    """

    def __init__(self) -> None:
        self.judged = 0
        self.rejected = 0
        self.unasked: str | None = None
        self.smallest: _Failure | None = None
        self.last: _Failure | None = None

    def note(self, because: str, asked: list[Asked]) -> None:
        self.last = _Failure(because=because, asked=tuple(asked))
        if self.smallest is None or self.last.size < self.smallest.size:
            self.smallest = self.last

    def reject(self, asked: list[Asked]) -> None:
        self.rejected += 1
        for one in asked:
            match one.reply:
                case Misused(sentence=sentence):
                    self.unasked = sentence
                case StoreFaulted(fired=False):
                    self.unasked = "a fault that was asked for did not take effect"
                case RoundEnded(fired=tuple() as fired) if not all(fired):
                    self.unasked = "faults that were asked for did not take effect"


def examine(case: PropertyCase, subject: Subject, *, profile: Profile, seed: int) -> Outcome:
    """Search for an example that breaks the property; never raises but for an interrupt."""
    lacking = why_unsupported(case, subject)
    if lacking is not None:
        return Outcome(name=case.name, status="UNSUPPORTED", examples=0, seconds=0.0, because=lacking)
    record, began = _Record(), time.monotonic()
    subject.begin_property(within_s=profile.within_s)
    status, because, failure = _search(case, subject, record, profile=profile, seed=seed)
    return Outcome(
        name=case.name,
        status=status,
        examples=record.judged,
        seconds=time.monotonic() - began,
        because=because,
        counterexample=_show(failure.asked) if failure else None,
        requests=tuple(asked.request for asked in failure.asked) if failure else (),
    )


def _search(
    case: PropertyCase, subject: Subject, record: _Record, *, profile: Profile, seed: int
) -> tuple[Status, str | None, _Failure | None]:
    run = _prepare(case, subject, record, profile=profile, seed=seed)
    try:
        with one_thread():
            run()
    except CannotTell as error:
        return "CANNOT_TELL", str(error), None
    except Enough as error:
        if record.smallest is not None:
            return "BROKEN", record.smallest.because, record.smallest
        return _judge_stopped(record, most=_most_examples(case, profile), because=str(error))
    except Unsatisfiable:
        return "CANNOT_TELL", _why_unasked(record), None
    except Flaky:
        found = record.last
        because = f"it is not deterministic: the same example failed, then held ({found.because if found else ''})"
        return "BROKEN", because, found
    except AssertionError:
        assert record.last is not None
        return "BROKEN", record.last.because, record.last
    except (Exception, HypothesisException) as error:
        place = traceback.extract_tb(error.__traceback__)[-1]
        where = f"{place.filename.rsplit('/', 1)[-1]}:{place.lineno}"
        return "ERROR", f"{type(error).__name__} in {where}: {' '.join(str(error).split())}", None
    return _judge_searched(record)


def _judge_stopped(record: _Record, *, most: int, because: str) -> tuple[Status, str | None, _Failure | None]:
    """All examples held until time was up; too few of them are nothing to go by."""
    stopped = f"{because} after {record.judged} of {most} examples"
    if record.judged < LEAST_EXAMPLES and record.unasked:
        stopped += f"; {record.unasked}"
    return ("HOLDS" if record.judged >= LEAST_EXAMPLES else "CANNOT_TELL"), stopped, None


def _judge_searched(record: _Record) -> tuple[Status, str | None, _Failure | None]:
    """The search went to its end and nothing failed; a law of so few examples that it tried all of them holds too."""
    if record.judged >= LEAST_EXAMPLES or (record.judged and not record.rejected):
        return "HOLDS", None, None
    total = record.judged + record.rejected
    return "CANNOT_TELL", f"{record.judged} of {total} examples could be judged; {_why_unasked(record)}", None


def _prepare(
    case: PropertyCase, subject: Subject, record: _Record, *, profile: Profile, seed: int
) -> Callable[[], None]:
    """The property as a Hypothesis test of its own, afresh each time."""

    def example(**drawn: Any) -> None:
        subject.begin_example()
        before_any_failure = record.smallest is None
        try:
            case.law.inner(subject, **case.parameters, **drawn)
        except AssertionError as error:
            # pytest adds what it made of the assert; the sentence stands before it.
            record.note(str(error).split("\nassert ")[0], subject.asked)
            record.judged += before_any_failure
            raise
        except Enough as error:
            record.note(str(error), subject.asked) if subject.asked else None
            record.judged += before_any_failure
            raise
        except UnsatisfiedAssumption:
            record.reject(subject.asked)
            raise
        record.judged += before_any_failure

    parameters = case.parameters
    strategies = {
        name: draws if isinstance(draws, SearchStrategy) else draws(**parameters)
        for name, draws in case.law.draws.items()
    }
    phases = [Phase.explicit, Phase.generate, Phase.target] + ([Phase.shrink] if profile.shrink else [])
    chosen = settings(
        max_examples=_most_examples(case, profile),
        database=None,
        deadline=None,
        phases=phases,
        suppress_health_check=list(HealthCheck),
        report_multiple_bugs=False,
        print_blob=False,
        verbosity=Verbosity.quiet,
    )
    stream = int.from_bytes(hashlib.sha256(f"{seed}/{case.name}".encode()).digest()[:8], "big")
    test: Callable[[], None] = hypothesis.seed(stream)(chosen(given(**strategies)(example)))
    return test


def _most_examples(case: PropertyCase, profile: Profile) -> int:
    return max(LEAST_EXAMPLES, profile.examples // case.law.thrift)


def _why_unasked(record: _Record) -> str:
    """Why so few examples could be asked."""
    return record.unasked or "none of the examples could be asked"


def _show(asked: tuple[Asked, ...]) -> str:
    return "\n".join(f"{show_request(one.request)}\n  -> {show_reply(one.reply)}" for one in asked)
