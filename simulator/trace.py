"""What happened in a run, as JSON lines: a header, events in order, and at the end a digest over the events alone.

The same scenario and seed give the same digest in the simulator, in any process. A live run has another one each time:
its times are real; it is compared by its verdicts.
"""

from __future__ import annotations

import hashlib
import json
import math
from pathlib import Path
from typing import Any, Final

from hqde_ref.errors import WireError

__all__ = ["FORMAT", "Trace", "read_trace"]

FORMAT: Final = "hqde.trace/v1"


def _line(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), sort_keys=True, allow_nan=False)


def _plain(value: Any) -> Any:
    """JSON values only: floats that JSON cannot hold become text, times keep nanoseconds."""
    match value:
        case float():
            return round(value, 9) if math.isfinite(value) else str(value)
        case dict():
            return {str(key): _plain(item) for key, item in value.items()}
        case list() | tuple():
            return [_plain(item) for item in value]
        case _:
            return value


class Trace:
    """Events of one run. Time is in seconds since the run began."""

    def __init__(self, **header: Any) -> None:
        self.header: dict[str, Any] = {"format": FORMAT, **_plain(header)}
        self.events: list[dict[str, Any]] = []

    def add(self, event: str, time: float, **fields: Any) -> None:
        self.events.append({"event": event, "time": _plain(time), **_plain(fields)})

    @property
    def digest(self) -> str:
        """blake2b over the events' lines."""
        state = hashlib.blake2b(digest_size=16)
        for event in self.events:
            state.update(_line(event).encode("utf-8", "backslashreplace") + b"\n")
        return state.hexdigest()

    def write(self, path: Path) -> None:
        lines = [
            _line(self.header),
            *map(_line, self.events),
            _line({"digest": self.digest, "events": len(self.events)}),
        ]
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def read_trace(path: Path) -> Trace:
    """A trace from its file.

    Raises:
        WireError: when it is not there, not a trace, cut short, or its digest does not fit its events.
    """
    try:
        lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line]
    except (OSError, ValueError) as error:
        raise WireError(
            what=str(path), wanted="a trace", got=str(error), do="name a file that `hqde-sim run` wrote"
        ) from None
    if len(lines) < 2 or not isinstance(lines[0], dict) or lines[0].get("format") != FORMAT:
        raise WireError(
            what=str(path), wanted=f"a trace of format {FORMAT}", got="something else", do="name a trace file"
        )
    trace = Trace()
    trace.header, trace.events, tail = lines[0], lines[1:-1], lines[-1]
    if not isinstance(tail, dict) or tail.get("digest") != trace.digest:
        raise WireError(
            what=str(path),
            wanted="events with the digest in its last line",
            got=trace.digest,
            do="it was changed or cut; run again",
        )
    return trace
