"""The refusal of code that is none: looked at once, when a tape is read, before any of it runs.

Slots are looked up when the code runs, because how many there are depends on the settings.
"""

from __future__ import annotations

import reprlib
from collections.abc import Collection, Mapping

from vramplan.engines.torch.tape.code import Step, loop_parts
from vramplan.engines.torch.tape.expressions import check_expression
from vramplan.errors import TapeError

#: bounds of what is read; the tapes that ship stay a factor of ten below
MOST_STEPS = 200_000
MOST_SLOTS = 1_000_000
_MOST_LOOPS = 10_000
_DEEPEST_LOOP = 12
_DEEPEST_CALL = 16
_LONGEST_NAME = 100
_LARGEST_ELEMENT_BYTES = 16


class CodeCheck:
    """Looks at one routine's code.

    `sizes` is how many the routine has, `modules` how many modules each component has. `calls` are
    gathered: each routine that is called, and the number of outputs it is said to leave.
    """

    __slots__ = ("calls", "modules", "sizes", "steps")

    def __init__(self, *, sizes: int, modules: Mapping[str, int]) -> None:
        self.sizes = sizes
        self.modules = modules
        self.calls: set[tuple[str, int]] = set()
        self.steps = 0

    def check(self, code: object, depth: int = 0) -> None:
        """Raise TapeError for the first step that is none, or that points outside of its table."""
        if not isinstance(code, list):
            raise TapeError("code is not a list")
        if depth > _DEEPEST_LOOP:
            raise TapeError("its loops are nested too deeply")
        self.steps += len(code)
        if self.steps > MOST_STEPS:
            raise TapeError(f"a routine with more than {MOST_STEPS} steps is not read")
        for op in code:
            if type(op) is int:
                if not -MOST_SLOTS <= op < self.sizes:
                    raise TapeError(f"step {shorten(op)} allocates a size that is not there")
            elif not (isinstance(op, list) and op and self._is_step(op, depth)):
                raise TapeError(f"not a step: {shorten(op)}")

    def _is_step(self, op: Step, depth: int) -> bool:
        match op:  # the most frequent first
            case ["e" | "x", str(component), module]:
                return type(module) is int and 0 <= module < self.modules.get(component, 0)
            case ["f", up, [*path], *slots]:
                return _is_whole(up, 0, _DEEPEST_LOOP) and _is_address(path, slots)
            case ["w", kind, *operands]:
                return (
                    is_name(kind) and 0 < len(operands) < 16 and all(map(self._is_size, operands))
                )
            case ["g"] | ["g", "autograd"]:
                return True
            case ["p", phase] | ["p", phase, _]:
                return is_name(phase) and is_name(op[-1])
            case ["c", str(routine), dict(dims), int(outputs)]:
                self.calls.add((routine, outputs))
                return all(map(self._is_size, dims.values()))
            case ["t", str(component), size]:
                return component in self.modules and _is_whole(size, 1, _LARGEST_ELEMENT_BYTES)
            case ["l", name, str(count), [*_], _, [*_]]:
                check_expression(count)
                for part in loop_parts(op):
                    self.check(part, depth + 1)
                return is_name(name)
            case _:
                return False

    def _is_size(self, number: object) -> bool:
        return _is_whole(number, 0, self.sizes - 1)


def is_name(value: object) -> bool:
    """True for a short text."""
    return isinstance(value, str) and 0 < len(value) <= _LONGEST_NAME


def _is_address(path: list[object], slots: list[object]) -> bool:
    return len(path) <= _DEEPEST_LOOP and all(map(_is_place, path)) and all(map(_is_slots, slots))


def _is_place(place: object) -> bool:
    """True for [loop, iteration], one stage of a free's path."""
    match place:
        case [loop, "all"]:
            which: object = 0
        case [loop, ["same", name]]:
            return is_name(name) and _is_whole(loop, 0, _MOST_LOOPS)
        case [loop, ["back", which]]:
            pass
        case [loop, which]:
            return _is_whole(loop, 0, _MOST_LOOPS) and _is_whole(which, -_MOST_LOOPS, _MOST_LOOPS)
        case _:
            return False
    return _is_whole(loop, 0, _MOST_LOOPS) and _is_whole(which, 0, _MOST_LOOPS)


def _is_slots(slots: object) -> bool:
    match slots:
        case [int(first), int(last)]:
            return 0 <= first <= last <= MOST_SLOTS
        case _:
            return _is_whole(slots, 0, MOST_SLOTS)


def _is_whole(value: object, least: int, most: int) -> bool:
    return type(value) is int and least <= value <= most


def check_calls(calls: Mapping[str, Collection[str]]) -> None:
    """Raise TapeError where a routine calls itself through others, or calls nest too deeply."""
    depths: dict[str, int] = {}

    def depth_of(name: str, above: tuple[str, ...]) -> int:
        if name in above:
            raise TapeError(f"routine {shorten(name)} calls itself")
        if len(above) > _DEEPEST_CALL:
            raise TapeError("its calls are nested too deeply")
        if name not in depths:
            path = (*above, name)
            depths[name] = 1 + max((depth_of(inner, path) for inner in calls[name]), default=0)
        return depths[name]

    for name in calls:
        depth_of(name, ())


def shorten(value: object) -> str:
    """Return what a message shows of a part of a tape, however large or deep that part is."""
    return reprlib.repr(value)[:60]
