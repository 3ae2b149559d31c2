"""Verdicts beside those of an earlier answer: what has become better, worse, or is new."""

from __future__ import annotations

from enum import StrEnum

from vramplan.model import VerdictKind
from vramplan.quick_dataclass import dataclass


class Became(StrEnum):
    """What has become of a verdict, from the worst on."""

    WORSE = "worse"
    NEW = "new"
    SAME = "same"
    BETTER = "better"


@dataclass(frozen=True, slots=True, kw_only=True)
class Before:
    """A verdict of an earlier answer; `name` is what its project called it, or empty."""

    pipeline: str
    target: str
    name: str
    card: str
    kind: VerdictKind
    need_bytes: int
    budget_bytes: int

    @property
    def label(self) -> str:
        """Return what it goes by."""
        return self.name or self.pipeline


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """A verdict since then: the sizes are how much more it needs and is offered, None for new."""

    became: Became
    before: Before | None
    need_bytes: int | None
    budget_bytes: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """A difference for each verdict, in their order, and what is judged no more.

    `place` is the file of the earlier answer.
    """

    place: str
    differences: tuple[Difference, ...]
    gone: tuple[Before, ...]

    def count(self, became: Became) -> int:
        """Return how many verdicts have become so."""
        return sum(one.became is became for one in self.differences)
