"""Every error this package raises on purpose: one sentence that says what was wanted, what came, and what to do.

Expected trouble (a silent worker, a lying majority) is returned as a value (``Failed``, ``Refused``), never raised.
Errors are for misuse: a nonsensical setting, tensors that do not fit together, a file that is not what it claims.
"""

from __future__ import annotations

from typing import Any

__all__ = [
    "BrokenCertificate",
    "ConfigurationError",
    "ForeignError",
    "HqdeError",
    "LayoutError",
    "NotFinite",
    "RuntimeFault",
    "ScenarioError",
    "TooFewContributions",
    "WireError",
    "require_integer",
]


class HqdeError(Exception):
    """Base of all errors of this project; its text is the whole sentence."""

    def __reduce__(self) -> tuple[Any, ...]:
        # Children take keywords, which pickle (used by Ray between its own processes) would not give back.
        return _rebuild, (type(self), str(self))


def _rebuild(kind: type[HqdeError], sentence: str) -> HqdeError:
    error = kind.__new__(kind)
    Exception.__init__(error, sentence)
    return error


class ConfigurationError(HqdeError, ValueError):
    """A setting that makes no sense (clause 0.7)."""

    def __init__(self, *, setting: str, wanted: str, got: object, do: str) -> None:
        super().__init__(f"{setting} must be {wanted}, got {_shown(got)}; {do}.")


def require_integer(setting: str, value: object, *, least: int, do: str) -> None:
    """Refuse a setting that is no integer (True and False are none), or is below ``least``.

    Raises:
        ConfigurationError: naming the setting.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ConfigurationError(setting=setting, wanted=f"an integer of at least {least}", got=value, do=do)


_SHOWN_MAX = 200  # characters of a value in a sentence


def _shown(value: object) -> str:
    try:
        text = repr(value)
    except ValueError:  # Python writes no integer of more than 4300 digits
        return f"{type(value).__name__} too long to be written"
    return text if len(text) <= _SHOWN_MAX else f"{text[: _SHOWN_MAX // 4]}... ({len(text)} characters)"


class TooFewContributions(HqdeError):
    """A rule was given fewer rows than its proof needs (clause 4.9), or none at all."""

    def __init__(
        self,
        *,
        rule: str,
        faulty_max: int | None,
        needed: int,
        got: int,
        where: str = "",
        setting: str = "faulty_max",
    ) -> None:
        place = f" ({where})" if where else ""
        if faulty_max is None and needed > 1:  # there is no such setting
            super().__init__(f"{rule} needs at least {needed} contributions, got {got}{place}; add workers.")
            return
        if faulty_max is None:  # nobody said, or it does not matter: there is no row
            super().__init__(
                f"{rule} needs at least one contribution whatever faulty_max is, got no rows{place}; "
                f"pass one row per contribution."
            )
            return
        super().__init__(
            f"{rule} with {setting}={faulty_max} needs at least {needed} contributions, got {got}{place}; "
            f"add workers or lower {setting}."
        )


class LayoutError(HqdeError, ValueError):
    """Tensors that do not fit together or into the declared layout (clause 0.6)."""

    def __init__(self, *, what: str, wanted: str, got: str, do: str) -> None:
        super().__init__(f"{what}: wanted {wanted}, got {got}; {do}.")


class NotFinite(HqdeError, ValueError):
    """A NaN or an infinity where screening should have removed it (clause 0.5)."""

    def __init__(self, *, rule: str, rows: tuple[int, ...] = (), what: str = "", do: str = "") -> None:
        if what:  # not a row, but something else that was given
            super().__init__(f"{what} of {rule} holds NaN or infinity; {do}.")
            return
        listed = ", ".join(map(str, rows[:8])) + (", ..." if len(rows) > 8 else "")
        super().__init__(
            f"{rule} was given NaN or infinity in row(s) {listed}; "
            f"screen contributions first (hqde_ref.core.screening) and reject those rows."
        )


class BrokenCertificate(HqdeError):
    """A result that does not prove what it should (clause 6.7): a fault of the arithmetic, not of a member."""

    def __init__(self, *, rule: str, because: str) -> None:
        super().__init__(
            f"the certificate of {rule} is broken: {because}; "
            f"keep the contributions and report them, the result must not be used."
        )


class WireError(HqdeError, ValueError):
    """A message from outside that cannot be read."""

    def __init__(self, *, what: str, wanted: str, got: str, do: str) -> None:
        super().__init__(f"{what}: wanted {wanted}, got {got}; {do}.")


class ScenarioError(HqdeError, ValueError):
    """A scenario file that is missing, malformed or nonsensical."""

    def __init__(self, *, file: str, where: str, problem: str) -> None:
        place = f" {where}:" if where else ""
        super().__init__(f"{file}:{place} {problem}")


class ForeignError(HqdeError):
    """A foreign implementation that cannot be found, imported or started."""

    def __init__(self, *, implementation: str, problem: str, do: str) -> None:
        super().__init__(f"implementation {implementation!r}: {problem}; {do}.")


class RuntimeFault(HqdeError):
    """A runtime that cannot do its work: hosts that do not start, a cluster that does not answer (clause 1.2)."""

    def __init__(self, *, what: str, problem: str, do: str) -> None:
        super().__init__(f"{what}: {problem}; {do}.")
