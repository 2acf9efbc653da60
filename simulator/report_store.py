"""What the weight store did, in sentences for a report. Pure."""

from __future__ import annotations

from typing import Final

from simulator.report_fields import Fields

__all__ = ["STORE_EVENTS", "tell_store"]

STORE_EVENTS: Final = ("store read", "store written", "store rejoined", "store not rejoined", "store damage met")


def tell_store(event: str, fields: Fields) -> str:
    """One event of a trace as a sentence without its end."""
    match event:
        case "store read":
            return _told_read(fields)
        case "store written":
            return _told_written(fields)
        case "store rejoined":
            behind = ", but not all of its bytes" if fields.names("behind") else ""
            return f"{fields.text('store')} came back empty, was brought up to date{behind} and serves again"
        case "store damage met":
            return f"the damaged copy on {fields.text('store')} was met by a read"
        case _:
            return f"{fields.text('store')} does not serve: {fields.text('reason')}"


def _told_read(fields: Fields) -> str:
    version = fields.version("version")
    if version is None:
        return f"the state was not read: {fields.text('reason', '')}"
    mended = fields.names("repaired")
    return f"the state was read in version {version}" + (f", and {', '.join(mended)} repaired" if mended else "")


def _told_written(fields: Fields) -> str:
    if not fields.flag("acknowledged"):
        return f"the result is not called written: {fields.text('reason', '')}"
    return f"the result was written as version {fields.version('version')}, by {', '.join(fields.names('stores'))}"
