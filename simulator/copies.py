"""Which machines hold a copy of each payload, in virtual time: as on Ray, it is lost with the last that has one.

Whoever makes a vector holds it, and so does every machine on which somebody has read it. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from hqde_ref.messages import Payload

__all__ = ["Copies"]


class Copies:
    """Copies by key; where there is one machine, nothing is kept, since none is lost.

    Args:
        machine_of: the machine of each host.
    """

    def __init__(self, machine_of: Mapping[str, str]) -> None:
        self._machine_of = machine_of if len(set(machine_of.values())) > 1 else {}
        self._at: dict[str, set[str]] = {}
        self._gone: set[str] = set()

    def make(self, host: str, payloads: Iterable[Payload]) -> None:
        """Made on this host, be it anew."""
        if self._machine_of:
            for payload in payloads:
                self._at[payload.key] = {self._machine_of[host]}
                self._gone.discard(payload.key)

    def read(self, host: str, payloads: Iterable[Payload]) -> None:
        """Read by this host, whose machine has a copy from now on."""
        if self._machine_of:
            for payload in payloads:
                if payload.key not in self._gone:
                    self._at.setdefault(payload.key, set()).add(self._machine_of[host])

    def drop(self, machine: str) -> None:
        """The machine is lost, with what only it held."""
        for key, machines in self._at.items():
            machines.discard(machine)
            if not machines:
                self._gone.add(key)

    def is_gone(self, payload: Payload) -> bool:
        return payload.key in self._gone
