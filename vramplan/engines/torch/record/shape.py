"""The shape of alike trees: how loops fold into special iterations and a body that repeats."""

from __future__ import annotations

from typing import TypeAlias

from vramplan.engines.torch.record.stream import Alloc, Call, Cast, Gemm, Leaf, Phase, Workspace
from vramplan.engines.torch.record.structure import (
    Address,
    At,
    FreeRun,
    Item,
    Loop,
    Selector,
    Sequence,
)

#: where a loop is in a tree: the ordinals of the loops around it, and its own
Path: TypeAlias = tuple[int, ...]


class Shape:
    """How the loops of alike trees fold: which iterations are special, which are the body.

    The tree with the most iterations of a loop decides; the others must agree, with fewer or no
    repetitions of the body. Of the loops of `apart` the last iteration is no part of the body.
    """

    def __init__(self, trees: list[Sequence], apart: frozenset[str] = frozenset()) -> None:
        self.trees = trees
        self._apart = apart
        self.folds: dict[Path, tuple[int, int]] = {}
        loops: dict[Path, list[Loop]] = {}
        for tree in trees:
            _collect(tree, (), loops)
        for path in sorted(loops, key=len, reverse=True):
            longest = max(loops[path], key=lambda loop: len(loop.iterations))
            self.folds[path] = self._find_fold(longest, path)

    def is_one(self) -> bool:
        """True where all the trees have this shape."""
        forms = [self.form(tree, ()) for tree in self.trees]
        return all(agree(forms[0], form) for form in forms[1:])

    def _find_fold(self, loop: Loop, path: Path) -> tuple[int, int]:
        forms = [self.form(s, path) for s in loop.iterations]
        best, start = (0, 0), 0
        for i in range(1, len(forms) + 1):
            if i == len(forms) or not agree(forms[i], forms[start]):
                if i - start > best[1] - best[0]:
                    best = (start, i)
                start = i
        first, last = best
        if last - first < 2:  # nothing repeats: every iteration is special
            return len(forms), 0
        return first, len(forms) - last or int(loop.name in self._apart)

    def fold(self, loop: Loop, path: Path) -> tuple[list[Sequence], list[Sequence], list[Sequence]]:
        """Return the iterations before, in and after the body."""
        before, after = self.folds[path]
        end = max(before, len(loop.iterations) - after)
        return loop.iterations[:before], loop.iterations[before:end], loop.iterations[end:]

    def form(self, sequence: Sequence, path: Path) -> tuple[object, ...]:
        """Return what can be compared between settings: everything but sizes."""
        return tuple(self._item_form(item, path) for item in sequence.items)

    def _item_form(self, item: Item, path: Path) -> tuple[object, ...]:
        if isinstance(item, Alloc):
            return ("alloc", item.operator)
        if isinstance(item, FreeRun):
            return ("free", *item.addresses)
        if isinstance(item, Workspace):
            return ("workspace", item.kind)
        if isinstance(item, Gemm):
            return ("gemm", item.is_backward)
        if isinstance(item, Phase):
            return ("phase", item.name, item.component)
        if isinstance(item, Cast):
            return ("cast", item.component, item.element_bytes)
        if isinstance(item, Leaf):
            return ("leaf", item.component, item.module, item.is_enter)
        if isinstance(item, Call):
            return ("call", item.routine, len(item.outputs))
        inner = (*path, item.ordinal)
        before, body, after = self.fold(item, inner)
        return (
            "loop",
            item.name,
            tuple(self.form(s, inner) for s in before),
            tuple(self.form(s, inner) for s in body),
            tuple(self.form(s, inner) for s in after),
        )


def agree(one: object, other: object) -> bool:
    """True for equal forms, where a loop's body may repeat a different number of times."""
    if one is other or one == other:
        return True
    if isinstance(one, Address) and isinstance(other, Address):
        return _same_place(one, other)
    if not (isinstance(one, tuple) and isinstance(other, tuple)):
        return False
    if len(one) == 5 and len(other) == 5 and one[0] == other[0] == "loop":
        bodies = [*one[3], *other[3]]
        return (
            one[1] == other[1]
            and agree(one[2], other[2])
            and agree(one[4], other[4])
            and all(agree(bodies[0], body) for body in bodies[1:])
        )
    return len(one) == len(other) and all(agree(a, b) for a, b in zip(one, other, strict=True))


def _same_place(one: Address, other: Address) -> bool:
    """True for addresses that may mean the same place in loops of different lengths."""
    return (one.up, one.slot, len(one.path)) == (other.up, other.slot, len(other.path)) and all(
        a[0] == b[0] and select([a[1], b[1]]) is not None
        for a, b in zip(one.path, other.path, strict=True)
    )


def select(selectors: list[Selector]) -> object:
    """Return how a tape writes what all these selectors mean; None where they differ.

    An iteration is counted from the last (-1) where that holds for all, else from the first (0);
    where all the loops ran equally often, the first is the first.
    """
    several = {s for s in selectors if s != "only"}
    if len(several) == 1 and not isinstance(one := next(iter(several)), At):
        return list(one) if isinstance(one, tuple) else one
    if not all(isinstance(s, At) for s in several):
        return None
    only = [At(0, -1)] if len(several) < len(set(selectors)) else []
    places = [*(s for s in several if isinstance(s, At)), *only]
    starts, ends = {s.start for s in places}, {s.end for s in places}
    if ends == {-1} or (len(ends) == 1 and starts != {0}):
        return ends.pop()
    return starts.pop() if len(starts) == 1 else None


def _collect(sequence: Sequence, path: Path, loops: dict[Path, list[Loop]]) -> None:
    for item in sequence.items:
        if isinstance(item, Loop):
            inner = (*path, item.ordinal)
            loops.setdefault(inner, []).append(item)
            for iteration in item.iterations:
                _collect(iteration, inner, loops)
