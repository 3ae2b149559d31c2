"""Layers in a row that are alike: a few of them stand for all.

Tens of layers of a model differ in nothing but their weights' names, or two, three or six kinds of
them take turns. A graph is built with the first few of such a row and what comes behind it. Where
the allocator's memory looks at the end of a layer as it did a period before, it looks so every
period from then on: what happens between two such ends is the same each time. (Results of layers
may change places among two or three, so a period need not be one round of turns.) Whole periods are
left out, and the rest goes on from where it would have been. The allocator compares the ends
(`graph_allocator.allocate`), and raises `UnlikeError` where they differ. The first round of a row
may differ by what is before it, the last by what is behind.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from math import lcm

from vramplan.quick_dataclass import dataclass
from vramplan.quick_typing import TypeVar

Found = TypeVar("Found")

#: kinds of layers that take turns: six in Gemma 3
_MOST_TURNS = 8


class UnlikeError(Exception):
    """Layers that are alike do not leave the memory alike a period later."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Repeats:
    """The layers that are built, by number; `alike` are pairs whose ends are to be compared."""

    numbers: tuple[int, ...]
    alike: tuple[tuple[int, int], ...] = ()


def few_of(kinds: Sequence[Hashable], period: int) -> Repeats:
    """Return which layers to build; those of equal `kinds` are alike. All where `period` is 0.

    Of a row in which several kinds take turns, whole rounds of turns are left out that are a
    multiple of `period`.
    """
    if not period:
        return Repeats(numbers=tuple(range(len(kinds))))
    named: dict[Hashable, int] = {}
    numbered = [named.setdefault(kind, len(named)) for kind in kinds]  # quick to compare
    numbers: list[int] = []
    alike: list[tuple[int, int]] = []
    first = 0
    while first < len(numbered):
        row = max(_rows(numbered, first, period), key=lambda row: row.count - row.kept)
        kept = row.kept if row.kept < row.count else 1
        numbers += range(first, first + kept)
        if row.kept < row.count:
            begun = first + row.turns
            alike.append((begun, begun + row.period))
        first += row.count if row.kept < row.count else 1
    return Repeats(numbers=tuple(numbers), alike=tuple(alike))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Row:
    """So many layers in which `turns` kinds take turns, and how many of them are built."""

    turns: int
    period: int
    count: int

    @property
    def kept(self) -> int:
        """The first round, a period behind its next layer, and the last round, or all."""
        least = 2 * self.turns + 1 + self.period
        return min(self.count, least + (self.count - least) % self.period)


def _rows(kinds: Sequence[int], first: int, period: int) -> Iterator[_Row]:
    """Yield the rows that begin with a layer: of one kind, of two that take turns, and so on."""
    for turns in range(1, _MOST_TURNS + 1):
        end = first + turns
        while end < len(kinds) and kinds[end] == kinds[end - turns]:
            end += 1
        yield _Row(turns=turns, period=lcm(turns, period), count=min(end, len(kinds)) - first)


def in_periods(periods: Sequence[int], find: Callable[[int], Found]) -> Found:
    """Return what `find` gives for the first of `periods` that holds, or with every layer."""
    for period in periods:
        try:
            return find(period)
        except UnlikeError:
            continue
    return find(0)
