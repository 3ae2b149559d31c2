"""Trees of one routine at several settings → the routine's code, every size an exact expression.

The trees must have the same shape; each loop is folded into iterations that differ (a scheduler's
warm-up, the last step) and a body repeated as often as the recipe's count says. Folding and counts
are proved on every recording.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import combinations

from vramplan.engines.torch.record.grammar import Grammar
from vramplan.engines.torch.record.shape import Shape, agree
from vramplan.engines.torch.record.size_fit import Fitter
from vramplan.engines.torch.record.stream import Stream
from vramplan.engines.torch.record.structure import Sequence, build_tree
from vramplan.engines.torch.record.writer import Dims, Place, Search, Writer
from vramplan.engines.torch.tape.code import Code, loop_parts, read_slots
from vramplan.engines.torch.tape.expressions import evaluate
from vramplan.errors import RecordingError

__all__ = ["Grammar", "assemble"]


def assemble(
    routine: str, streams: list[Stream], grammar: Grammar, search: Search | None = None
) -> list[dict[str, object]]:
    """Return the routine's variants: one, or one for each side of the conditions that split it.

    `search` finds the expressions where the grammar's own products do not. Raises RecordingError
    where the recordings' shapes differ in a way that no condition explains.
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
        shapes = [Shape([tree for tree, _ in side], grammar.apart) for side in sides.values()]
        if all(shape.is_one() for shape in shapes):
            return [
                _assemble_alike(routine, side, shape, grammar, _conjunction(chosen, truth), search)
                for (truth, side), shape in zip(
                    sorted(sides.items(), reverse=True), _sorted(sides, shapes), strict=True
                )
            ]
        different = [
            _difference(side, shape)
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


def _difference(trees: list[tuple[Sequence, Dims]], shape: Shape) -> str:
    first, first_dims = trees[0]
    for tree, dims in trees[1:]:
        one, other = shape.form(first, ()), shape.form(tree, ())
        if not agree(one, other):
            return f"{_first_difference(one, other)} at {first_dims} and {dims}"
    return "no difference found"


def _first_difference(one: object, other: object) -> str:
    if isinstance(one, tuple) and isinstance(other, tuple):
        for i, (a, b) in enumerate(zip(one, other, strict=False)):
            if not agree(a, b):
                return f"{i}: {_first_difference(a, b)}"
        if len(one) != len(other):
            longer = one if len(one) > len(other) else other
            return (
                f"{len(one)} or {len(other)} items, {str(longer[min(len(one), len(other))])[:200]}"
            )
    return f"{str(one)[:200]} or {str(other)[:200]}"


def _assemble_alike(
    routine: str,
    trees: list[tuple[Sequence, Dims]],
    shape: Shape,
    grammar: Grammar,
    condition: str | None,
    search: Search | None,
) -> dict[str, object]:
    # a dimension handed on to another routine is itself a product
    products = (*grammar.products, *trees[0][1], *grammar.derived)
    fitter = search or Fitter(products, _pinned(condition) | grammar.fixed)
    writer = Writer(routine, fitter, grammar, shape)
    code = writer.sequence([Place(tree, tuple(dims.items())) for tree, dims in trees])
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
            for part in loop_parts(op):
                yield from _freed(part, depth + 1)
