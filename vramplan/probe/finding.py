"""What was found when an installation was looked at."""

from __future__ import annotations

from enum import StrEnum

from vramplan.quick_dataclass import dataclass


class State(StrEnum):
    """How a thing is."""

    OK = "ok"
    NOTE = "note"
    BROKEN = "broken"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that was looked at."""

    thing: str
    state: State
    detail: str

    @property
    def is_broken(self) -> bool:
        """True where commands will fail."""
        return self.state is State.BROKEN
