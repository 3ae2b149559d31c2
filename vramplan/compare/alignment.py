"""Two lists of requests side by side, one request at a time.

The lists are nearly the same: one has scratch memory that the other lacks. What stands apart is
found by Myers's greedy algorithm (An O(ND) Difference Algorithm and Its Variations, 1986), the
least there is; where the lists differ in more places than `_MOST_APART`, it begins anew from half
way of how far it has come, so that its time stays in proportion to the lists.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

#: places apart after which the search begins anew
_MOST_APART = 400
#: steps of the search in all, which bounds what a stranger's lists cost; what is left then is apart
_MOST_STEPS = 20_000_000


@dataclass(frozen=True, slots=True)
class Apart:
    """A request that one side alone makes here.

    `at` is its place on our side; what is on their side only stands before that place.
    """

    at: int
    is_ours: bool
    size_bytes: int


@dataclass(slots=True)
class Steps:
    """What is left of the steps that a comparison may take."""

    left: int = _MOST_STEPS


def align(
    ours: Sequence[int], theirs: Sequence[int], steps: Steps | None = None
) -> Iterator[Apart]:
    """Yield what is on one side only, in order; all else is on both, in the same order."""
    budget = Steps() if steps is None else steps
    mine = _known(ours, theirs)  # a size that the other side never has is apart at once
    yours = _known(theirs, ours)
    pairs = _pairs([ours[at] for at in mine], [theirs[at] for at in yours], budget)
    done, seen = 0, 0
    for left, right in pairs:
        yield from _apart(ours, theirs, (done, mine[left]), (seen, yours[right]))
        done, seen = mine[left] + 1, yours[right] + 1
    yield from _apart(ours, theirs, (done, len(ours)), (seen, len(theirs)))


def _known(sizes: Sequence[int], others: Sequence[int]) -> list[int]:
    known = set(others)
    return [at for at, size in enumerate(sizes) if size in known]


def _apart(
    ours: Sequence[int], theirs: Sequence[int], mine: tuple[int, int], yours: tuple[int, int]
) -> Iterator[Apart]:
    for at in range(*mine):
        yield Apart(at, is_ours=True, size_bytes=ours[at])
    for at in range(*yours):
        yield Apart(mine[1], is_ours=False, size_bytes=theirs[at])


def _pairs(ours: Sequence[int], theirs: Sequence[int], budget: Steps) -> Iterator[tuple[int, int]]:
    """Yield the places that go together, rising on both sides."""
    left, right = 0, 0
    while left < len(ours) and right < len(theirs) and budget.left > 0:
        trace, end = _search(ours, theirs, left, right, budget)
        path = _path(trace, (end[0] - left, end[1] - right))
        if end != (len(ours), len(theirs)):  # how it goes on may change how it is best got here
            path = path[: -(-len(path) // 2)]
        yield from ((left + at, right + other) for run in path for at, other in run.pairs)
        left, right = left + path[-1].at, right + path[-1].other


def _search(
    ours: Sequence[int], theirs: Sequence[int], left: int, right: int, budget: Steps
) -> tuple[list[dict[int, int]], tuple[int, int]]:
    """Return how far each diagonal got with each number of places apart, and where it ended.

    A diagonal is a difference of the two places, both counted from where the search begins.
    """
    width, height = len(ours) - left, len(theirs) - right
    reached = {1: 0}
    trace: list[dict[int, int]] = []
    end = (0, 0)
    for apart in range(_MOST_APART + 1):
        trace.append(reached)
        now: dict[int, int] = {}
        for diagonal in range(-apart, apart + 1, 2):
            at, _ = _entry(reached, diagonal, apart)
            other = at - diagonal
            while at < width and other < height and ours[left + at] == theirs[right + other]:
                at, other = at + 1, other + 1
            now[diagonal] = at
            if at <= width and other <= height and at + other > sum(end):
                end = (at, other)
        budget.left -= apart + 1
        reached = now
        if end == (width, height) or budget.left <= 0:
            break
    trace.append(reached)
    return trace, (left + end[0], right + end[1])


def _entry(reached: dict[int, int], diagonal: int, apart: int) -> tuple[int, bool]:
    """Return where a diagonal is entered, and whether by leaving out one of theirs."""
    is_theirs = diagonal == -apart or (
        diagonal != apart and reached[diagonal - 1] < reached[diagonal + 1]
    )
    return (reached[diagonal + 1] if is_theirs else reached[diagonal - 1] + 1), is_theirs


@dataclass(slots=True)
class _Run:
    """Pairs that follow one another, and the places behind them; one run for each place apart."""

    at: int
    other: int
    pairs: list[tuple[int, int]]


def _path(trace: Sequence[dict[int, int]], end: tuple[int, int]) -> list[_Run]:
    """Return the way to `end`; places count from where the search began."""
    at, other = end
    apart = next(n for n, one in enumerate(trace[1:]) if one.get(at - other) == at)
    found: list[_Run] = []
    for number in range(apart, -1, -1):
        entered, is_theirs = _entry(trace[number], at - other, number)
        length = at - entered
        pairs = [(entered + n, other - length + n) for n in range(length)]
        found.append(_Run(at, other, pairs))
        at, other = entered, other - length
        at, other = (at, other - 1) if is_theirs else (at - 1, other)
    return found[::-1]
