"""A card that is watched, and what is planned to be on it."""

from __future__ import annotations

from vramplan.measurement.peaks import Peaks
from vramplan.quick_dataclass import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is planned to be on the card: a line across its bar."""

    label: str
    size_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Watched:
    """A card that is watched, by its name, with the plan for a card of its kind."""

    label: str
    peaks: Peaks = field(default_factory=Peaks)
    plan: Plan | None = None
