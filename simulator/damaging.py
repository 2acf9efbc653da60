"""Copies in the weight store that faults damage, and what became of them: only one that was met shows anything.

Source: HQDE clause 2.7.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Protocol

from simulator.storage import Storage

__all__ = ["Damaging", "NoteFault"]


class NoteFault(Protocol):
    def __call__(self, number: int, action: str, hits: list[str], **more: str) -> None: ...


class Damaging:
    """The damage of a run, told apart by fault: where it may be in place yet, where it was met, where it never can be.

    Args:
        note: told (event, fields) when damage is met.
    """

    def __init__(self, storage: Storage, *, note_fault: NoteFault, note: Callable[..., None]) -> None:
        self._storage = storage
        self._note_fault = note_fault
        self._note = note
        self._struck_in: dict[int, int] = {}  # by fault: the round
        self._sure: dict[int, set[str]] = {}  # by fault: stores that said their copy is damaged
        self._waiting: dict[int, set[str]] = {}  # by fault: stores to be asked, also those that said nothing
        self._met: dict[int, set[str]] = {}

    def strike(self, fault: int, number: int, stores: Collection[str]) -> None:
        """Damage copies. A store that does not answer may have done it, or may do it yet."""
        fired = self._storage.damage(stores, fault)
        self._struck_in[fault] = number
        self._sure[fault], self._met[fault] = set(), set()
        self._waiting[fault] = {store for store, sure in fired.items() if sure is not False}
        self._confirm(fault, [store for store, sure in fired.items() if sure])

    def ask_fates(self, number: int, *, silent: Collection[str]) -> None:
        """Find out which damage was met.

        What a store knows of it dies with its process, so whoever runs the rounds asks after everything that may meet
        damage, before the next fault strikes. It takes time, so not while a round's clock runs.

        Args:
            silent: stores that faults keep dead or stopped: nobody waits for them.
        """
        for fault, waiting in self._waiting.items():
            asked = sorted(waiting - set(silent))
            for store, fate in (self._storage.ask_fates(asked, fault) if asked else {}).items():
                if fate != "unheard of":
                    self._confirm(fault, [store])
                if fate == "met":
                    self._met[fault].add(store)
                    self._note("store damage met", round=number, store=store)
                if fate != "in place":
                    waiting.discard(store)

    def _confirm(self, fault: int, stores: list[str]) -> None:
        news = [store for store in stores if store not in self._sure[fault]]
        self._sure[fault].update(news)
        if news:
            self._note_fault(self._struck_in[fault], "damage", news)

    def outcome(self, fault: int) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """The stores whose damaged copy was met, and those where it was damaged and that is not known."""
        met, sure = self._met.get(fault, set()), self._sure.get(fault, set())
        return tuple(sorted(met)), tuple(sorted(sure - met))
