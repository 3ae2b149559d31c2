"""Trees of one routine at several settings → the routine's code, with every size an exact expression.

The trees must have the same shape; each loop is folded into iterations that differ (a scheduler's warm-up,
the last step) and a body repeated as often as the recipe's count says. Folding and counts are proved on
every recording.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import combinations
from typing import TypeAlias

from vramplan.errors import RecordingError
from vramplan.record.fit import Fitter
from vramplan.record.stream import Alloc, Call, Cast, Gemm, Leaf, Phase, Stream, Workspace
from vramplan.record.structure import (
    Address,
    At,
    FreeRun,
    Item,
    Loop,
    Selector,
    Sequence,
    build_tree,
)
from vramplan.tape.code import read_slots
from vramplan.tape.expressions import derive, evaluate

Code: TypeAlias = list[object]
Dims = dict[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Grammar:
    """What a recipe says about a routine's sizes.

    `derived` defines further dimensions (rounded levels, token counts; they may use loop names as
    indices), `products` are what sizes are made of, `counts` how often each loop runs, `splits` are
    conditions under which the code itself may differ.
    """

    products: tuple[str, ...] = ()
    derived: Mapping[str, str] = field(default_factory=dict)
    counts: Mapping[str, str] = field(default_factory=dict)
    splits: tuple[str, ...] = ("n==1",)

    def complete(self, dims: Mapping[str, int]) -> dict[str, int]:
        """Return `dims` with the derived ones; a loop's index is 0 outside of the loop."""
        return derive(self.derived, {**dict.fromkeys(self.counts, 0), **dims})


@dataclass(frozen=True, slots=True)
class _Place:
    """One occurrence of a sequence: in which recording, with which loop indices."""

    sequence: Sequence
    dims: tuple[tuple[str, int], ...]


def assemble(routine: str, streams: list[Stream], grammar: Grammar) -> list[dict[str, object]]:
    """Return the routine's variants: one, or one for each side of the conditions that split it.

    Raises RecordingError where the recordings' shapes differ in a way that no condition explains.
    """
    trees = [(build_tree(stream), stream.dims) for stream in streams]
    for chosen in (
        *combinations(grammar.splits, 0),
        *combinations(grammar.splits, 1),
        *combinations(grammar.splits, 2),
    ):
        sides: dict[tuple[bool, ...], list[tuple[Sequence, Dims]]] = {}
        for tree, dims in trees:
            known = grammar.complete(dims) if chosen else dims
            sides.setdefault(tuple(bool(evaluate(c, known)) for c in chosen), []).append(
                (tree, dims)
            )
        shapes = [Shape([tree for tree, _ in side]) for side in sides.values()]
        if all(shape.is_one() for shape in shapes):
            return [
                _assemble_alike(routine, side, shape, grammar, _conjunction(chosen, truth))
                for (truth, side), shape in zip(
                    sorted(sides.items(), reverse=True), _sorted(sides, shapes), strict=True
                )
            ]
        different = [
            _difference(side)
            for side, shape in zip(sides.values(), shapes, strict=True)
            if not shape.is_one()
        ]
    raise RecordingError(f"{routine}: the events differ between settings: {different[0]}")


def _sorted(sides: Mapping[tuple[bool, ...], object], shapes: list[Shape]) -> list[Shape]:
    by_truth = dict(zip(sides, shapes, strict=True))
    return [by_truth[truth] for truth in sorted(sides, reverse=True)]


def _conjunction(conditions: tuple[str, ...], truth: tuple[bool, ...]) -> str | None:
    parts = [c if t else f"not ({c})" for c, t in zip(conditions, truth, strict=True)]
    return " and ".join(f"({part})" for part in parts) if parts else None


def _difference(trees: list[tuple[Sequence, Dims]]) -> str:
    shape = Shape([tree for tree, _ in trees])
    first, first_dims = trees[0]
    for tree, dims in trees[1:]:
        one, other = shape.form(first, ()), shape.form(tree, ())
        if not _agree(one, other):
            return f"{_first_difference(one, other)} at {first_dims} and {dims}"
    return "no difference found"


def _first_difference(one: object, other: object) -> str:
    if isinstance(one, tuple) and isinstance(other, tuple):
        for i, (a, b) in enumerate(zip(one, other, strict=False)):
            if not _agree(a, b):
                return f"{i}: {_first_difference(a, b)}"
        if len(one) != len(other):
            longer = one if len(one) > len(other) else other
            return (
                f"{len(one)} or {len(other)} items, {str(longer[min(len(one), len(other))])[:200]}"
            )
    return f"{str(one)[:200]} or {str(other)[:200]}"


# ------------------------------------------------------------------ the shape of a tree
Path: TypeAlias = tuple[int, ...]


class Shape:
    """How the loops of alike trees fold: which iterations are special, which are the body.

    The tree with the most iterations of a loop decides; the others must agree, with fewer or no
    repetitions of the body.
    """

    def __init__(self, trees: list[Sequence]) -> None:
        self.trees = trees
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
        return all(_agree(forms[0], form) for form in forms[1:])

    def _find_fold(self, loop: Loop, path: Path) -> tuple[int, int]:
        forms = [self.form(s, path) for s in loop.iterations]
        best, start = (0, 0), 0
        for i in range(1, len(forms) + 1):
            if i == len(forms) or not _agree(forms[i], forms[start]):
                if i - start > best[1] - best[0]:
                    best = (start, i)
                start = i
        first, last = best
        if last - first < 2:  # nothing repeats: every iteration is special
            return len(forms), 0
        return first, len(forms) - last

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
            return ("gemm",)
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


def _agree(one: object, other: object) -> bool:
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
            and _agree(one[2], other[2])
            and _agree(one[4], other[4])
            and all(_agree(bodies[0], body) for body in bodies[1:])
        )
    return len(one) == len(other) and all(_agree(a, b) for a, b in zip(one, other, strict=True))


def _same_place(one: Address, other: Address) -> bool:
    """True for addresses that may mean the same place in loops that run a different number of times."""
    return (one.up, one.slot, len(one.path)) == (other.up, other.slot, len(other.path)) and all(
        a[0] == b[0] and _selection([a[1], b[1]]) is not None
        for a, b in zip(one.path, other.path, strict=True)
    )


def _selection(selectors: list[Selector]) -> object:
    """Return how a tape writes what all these selectors mean; None where they mean different things.

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


# ------------------------------------------------------------------------- writing code
class _Writer:
    def __init__(self, routine: str, fitter: Fitter, grammar: Grammar, shape: Shape) -> None:
        self.routine = routine
        self.shape = shape
        self.fitter = fitter
        self.grammar = grammar
        self.sizes: dict[str, int] = {}
        self.has_gemm = False

    def size(self, samples: list[tuple[Dims, int]], what: str) -> int:
        text = self.fitter.fit(samples, f"{self.routine}: {what}")
        return self.sizes.setdefault(text, len(self.sizes))

    def sequence(self, places: list[_Place], path: Path = ()) -> Code:
        code: Code = []
        full = [self.grammar.complete(dict(place.dims)) for place in places]
        for position in range(len(places[0].sequence.items)):
            items = [place.sequence.items[position] for place in places]
            code.extend(self.item(items, full, places, path))
        return code

    def item(
        self, items: list[Item], full: list[Dims], places: list[_Place], path: Path
    ) -> Iterator[object]:
        first = items[0]
        if isinstance(first, Alloc):
            yield self.size(
                [(d, i.size_bytes) for d, i in zip(full, items, strict=True)], first.operator
            )  # type: ignore[union-attr]
        elif isinstance(first, FreeRun):
            yield from self.frees([i for i in items if isinstance(i, FreeRun)])
        elif isinstance(first, Workspace):
            operands = [
                self.size(
                    [(d, i.operands[n]) for d, i in zip(full, items, strict=True)], first.kind
                )  # type: ignore[union-attr]
                for n in range(len(first.operands))
            ]
            yield ["w", first.kind, *operands]
        elif isinstance(first, Gemm):
            if not self.has_gemm:  # only the first product of a process matters: one mark a routine
                self.has_gemm = True
                yield ["g"]
        elif isinstance(first, Phase):
            yield (
                ["p", first.name]
                if first.component == "pipeline"
                else ["p", first.name, first.component]
            )
        elif isinstance(first, Leaf):
            yield ["e" if first.is_enter else "x", first.component, first.module]
        elif isinstance(first, Cast):
            yield ["t", first.component, first.element_bytes]
        elif isinstance(first, Call):
            arguments = {
                name: self.size(
                    [(d, i.dims[name]) for d, i in zip(full, items, strict=True)],
                    f"{first.routine}.{name}",
                )  # type: ignore[union-attr]
                for name in first.dims
            }
            yield ["c", first.routine, arguments, len(first.outputs)]
        else:
            yield self.loop([i for i in items if isinstance(i, Loop)], places, path)

    def frees(self, runs: list[FreeRun]) -> Iterator[object]:
        """Yield one run of frees as all the recordings have it; slots of one place go together."""
        places: dict[str, tuple[int, Code, list[int]]] = {}
        for addresses in zip(*(run.addresses for run in runs), strict=True):
            up, slot = addresses[0].up, addresses[0].slot
            steps = [
                [step[0], _selection([a.path[depth][1] for a in addresses])]
                for depth, step in enumerate(addresses[0].path)
            ]
            if any(selection is None for _, selection in steps):
                raise RecordingError(f"{self.routine}: a free names {set(addresses)}")
            places.setdefault(repr((up, steps)), (up, steps, []))[2].append(slot)
        for up, steps, slots in places.values():
            written = _write_slots(slots)
            if up == 0 and not steps:
                yield from (-slot - 1 for slot in written if isinstance(slot, int))
                written = [slot for slot in written if not isinstance(slot, int)]
            if written:
                yield ["f", up, steps, *written]

    def loop(self, loops: list[Loop], places: list[_Place], path: Path) -> list[object]:
        inner = (*path, loops[0].ordinal)
        name = loops[0].name
        count = self.grammar.counts.get(name)
        if count is None:
            raise RecordingError(
                f"{self.routine}: the recipe does not say how often loop {name!r} runs"
            )
        before, body, after = [], [], []
        for loop, place in zip(loops, places, strict=True):
            expected = evaluate(count, self.grammar.complete(dict(place.dims)))
            if expected != len(loop.iterations):
                raise RecordingError(
                    f"{self.routine}: loop {name!r} ran {len(loop.iterations)} times, the recipe says {expected}"
                )
            parts = self.shape.fold(loop, inner)
            for found, part in zip((before, body, after), parts, strict=True):
                found.append([_Place(s, (*place.dims, (name, s.number))) for s in part])
        bodies = [place for places_of in body for place in places_of]
        return [
            "l",
            name,
            count,
            [
                self.sequence([places_of[i] for places_of in before], inner)
                for i in range(len(before[0]))
            ],
            self.sequence(bodies, inner) if bodies else [],
            [
                self.sequence([places_of[i] for places_of in after], inner)
                for i in range(len(after[0]))
            ],
        ]


def _write_slots(slots: list[int]) -> list[int | list[int]]:
    """Return sorted slots with longer runs as [first, last]: an optimizer's state is one long run."""
    runs: list[list[int]] = []
    for slot in sorted(slots):
        if runs and runs[-1][-1] == slot - 1:
            runs[-1].append(slot)
        else:
            runs.append([slot])
    written: list[int | list[int]] = []
    for run in runs:
        written.extend([[run[0], run[-1]]] if len(run) > 3 else run)
    return written


def _assemble_alike(
    routine: str,
    trees: list[tuple[Sequence, Dims]],
    shape: Shape,
    grammar: Grammar,
    condition: str | None,
) -> dict[str, object]:
    # a dimension handed on to another routine is itself a product
    products = (*grammar.products, *trees[0][1], *grammar.derived)
    writer = _Writer(routine, Fitter(products, _pinned(condition)), grammar, shape)
    code = writer.sequence([_Place(tree, tuple(dims.items())) for tree, dims in trees])
    freed = set(_freed(code, 0))
    return {
        "if": condition,
        "indices": sorted(grammar.counts),
        "derived": dict(grammar.derived),
        "sizes": list(writer.sizes),
        "outputs": [slot for slot in range(trees[0][0].slots) if slot not in freed],
        "code": code,
    }


def _pinned(condition: str | None) -> frozenset[str]:
    """Return the dimensions to which a variant's condition gives one value."""
    return (
        frozenset({"n"})
        if condition is not None and "(n==1)" in condition and "not (n==1)" not in condition
        else frozenset()
    )


def _freed(code: Code, depth: int) -> Iterator[int]:
    """Yield the root's slots that this code, `depth` loops down, frees."""
    for op in code:
        if isinstance(op, int):
            if op < 0 and depth == 0:
                yield -op - 1
        elif isinstance(op, list) and op[0] == "f":
            if op[1] == depth and not op[2]:
                yield from read_slots(op[3:])
        elif isinstance(op, list) and op[0] == "l":
            for part in (*op[3], op[4], *op[5]):
                yield from _freed(part, depth + 1)
