"""Layers in a row that are alike: a few of them stand for all.

Tens of layers of a model differ in nothing but their weights' names. A graph is built with the
first few of such a row and what comes behind it. Where the allocator's memory looks at the end of a
layer as it did a period before, it looks so every period from then on: what happens between two
such ends is the same each time. (Results of layers may change places among two or three, so a
period need not be one layer.) Whole periods are left out, and the rest goes on from where it would
have been. The allocator compares the ends (`graph_allocator.allocate`), and raises `UnlikeError`
where they differ. The first of a row may differ by what is before it, the last by what is behind.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence

from vramplan.quick_dataclass import dataclass
from vramplan.quick_typing import TypeVar

Found = TypeVar("Found")


class UnlikeError(Exception):
    """Layers that are alike do not leave the memory alike a period later."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Repeats:
    """The layers that are built, by number; `alike` are pairs whose ends are to be compared."""

    numbers: tuple[int, ...]
    alike: tuple[tuple[int, int], ...] = ()


def few_of(kinds: Sequence[Hashable], period: int) -> Repeats:
    """Return which layers to build; those of equal `kinds` are alike. All where `period` is 0."""
    if not period:
        return Repeats(numbers=tuple(range(len(kinds))))
    numbers: list[int] = []
    alike: list[tuple[int, int]] = []
    first = 0
    for end in range(1, len(kinds) + 1):
        if end < len(kinds) and kinds[end] == kinds[first]:
            continue
        count = end - first
        least = 3 + period  # the first, a period behind the second, and the last
        kept = min(count, least + (count - least) % period)
        numbers += range(first, first + kept)
        if kept < count:
            alike.append((first + 1, first + 1 + period))
        first = end
    return Repeats(numbers=tuple(numbers), alike=tuple(alike))


def in_periods(periods: Sequence[int], find: Callable[[int], Found]) -> Found:
    """Return what `find` gives for the first of `periods` that holds, or with every layer."""
    for period in periods:
        try:
            return find(period)
        except UnlikeError:
            continue
    return find(0)
