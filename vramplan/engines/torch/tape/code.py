"""A routine's code, as JSON has it: a list of steps.

    n                               n >= 0 allocates `sizes[n]` into the next slot, n < 0 frees
                                    slot -n-1
    ["f", up, path, slot...]        frees elsewhere: climb `up` sequences, go down `path` of [loop,
                                    iteration], take the slots ([first, last] is a range of them)
    ["w", kind, size...]            a library's scratch; the sizes are its operands' (`convolution`)
    ["g"]                           a matrix product: the first makes cuBLAS take its workspace
    ["g", "autograd"]               one of a backward pass, whose thread has a workspace of its own
    ["p", phase]                    a phase begins, or ["p", phase, component]
    ["c", routine, dims, outputs]   a call; dims are {name: size}, its outputs get the next slots
    ["e"|"x", component, module]    a module that has weights is entered, left
    ["t", component, bytes]         a component is cast to another element size
    ["l", name, count, before, body, after]   a loop: iterations of their own, a body repeated, more

An iteration is its number (from the last: -1), "all", ["back", d] (d before this one) or
["same", loop] (the one with our number in a loop of that name).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from vramplan.quick_typing import TypeAlias, cast

Code: TypeAlias = list[object]
Step: TypeAlias = list[object]


def read_slots(written: Sequence[object]) -> Iterator[int]:
    """Yield the slots a free names: numbers, and [first, last] for all from one to the other."""
    for slot in written:
        if isinstance(slot, list):
            yield from range(slot[0], slot[1] + 1)
        else:
            yield cast("int", slot)


def loop_parts(step: Step) -> Iterator[Code]:
    """Yield the codes of a loop's iterations: those before, the body, those after."""
    yield from cast("list[Code]", step[3])
    yield cast("Code", step[4])
    yield from cast("list[Code]", step[5])


def find_peers(code: Code) -> Iterator[str]:
    """Yield the loops whose iterations free what the same iteration of an earlier run left."""
    for op in code:
        if not isinstance(op, list):
            continue
        if op[0] == "l":
            for part in loop_parts(op):
                yield from find_peers(part)
        elif op[0] == "f":
            yield from (
                step[1][1] for step in op[2] if isinstance(step[1], list) and step[1][0] == "same"
            )


def find_windows(code: Code) -> dict[tuple[int, ...], int | None]:
    """Return how many iterations back anything still frees, for each loop; None for any of them.

    A loop is named by its place: which loop of its sequence it is, after that sequence's own place.
    """
    windows: dict[tuple[int, ...], int | None] = {}
    _find_windows(code, (), windows)
    return windows


def _find_windows(
    code: Code, place: tuple[int, ...], windows: dict[tuple[int, ...], int | None]
) -> None:
    loops = 0
    for op in code:
        if not isinstance(op, list):
            continue
        if op[0] == "l":
            inner = (*place, loops)
            loops += 1
            windows.setdefault(inner, 0)
            for part in loop_parts(op):
                _find_windows(part, inner, windows)
        elif op[0] == "f":
            named = place[: max(0, len(place) - op[1])]
            for loop, which in op[2]:
                named = (*named, loop)
                known = windows.get(named, 0)
                is_back = isinstance(which, list) and which[0] == "back"
                windows[named] = max(known, which[1]) if is_back and known is not None else None


def without_modules(code: Code) -> Code:
    """Return `code` without the marks that only sequential offload reads."""
    kept: Code = []
    for op in code:
        if isinstance(op, list) and op[0] == "l":
            before, body, after = op[3:6]
            parts = [without_modules(part) for part in before], without_modules(body)
            kept.append([*op[:3], *parts, [without_modules(part) for part in after]])
        elif not (isinstance(op, list) and op[0] in ("e", "x")):
            kept.append(op)
    return kept
