"""Where a running tape keeps its blocks, and how a free finds the one it means."""

from __future__ import annotations

from vramplan.engines.torch.tape.allocator import Block
from vramplan.engines.torch.tape.code import read_slots
from vramplan.quick_typing import cast


class Frame:
    """The slots of one sequence that runs, and the iterations of its loops.

    `loop` is the loop whose iteration this is, `number` which one of it, `place` the loop's place
    in the routine (`code.find_windows`).
    """

    __slots__ = ("loop", "loops", "number", "parent", "place", "slots")

    def __init__(
        self,
        parent: Frame | None,
        loop: str = "",
        number: int = 0,
        place: tuple[int, ...] = (),
    ) -> None:
        self.parent = parent
        self.loop = loop
        self.number = number
        self.place = place
        self.slots: list[Block] = []
        self.loops: list[list[Frame]] = []

    def forget(self) -> int:
        """Let go of everything: nothing refers to it any more. Returns how many slots that were."""
        count = len(self.slots)
        count += sum(frame.forget() for iterations in self.loops for frame in iterations)
        self.slots.clear()
        self.loops.clear()
        return count


def resolve(frame: Frame, op: list[object]) -> list[Block]:
    """Return the blocks that a free elsewhere (`code`) means, seen from `frame`.

    Raises IndexError for a place that the run has not reached.
    """
    place = frame
    for _ in range(cast("int", op[1])):
        if place.parent is None:
            raise IndexError("a free climbs out of its routine")
        place = place.parent
    places = [place]
    for ordinal, selector in cast("list[tuple[int, object]]", op[2]):
        if selector == "all":
            places = [inner for p in places for inner in p.loops[ordinal]]
        elif isinstance(selector, list) and selector[0] == "same":
            number = _number_in(frame, cast("str", selector[1]))
            places = [p.loops[ordinal][number] for p in places]
        elif isinstance(selector, list):
            places = [p.loops[ordinal][-1 - cast("int", selector[1])] for p in places]
        else:
            places = [p.loops[ordinal][cast("int", selector)] for p in places]
    return [p.slots[slot] for slot in read_slots(op[3:]) for p in places]


def _number_in(frame: Frame, loop: str) -> int:
    """Return which iteration of the enclosing `loop` a frame belongs to."""
    place: Frame | None = frame
    while place is not None and place.loop != loop:
        place = place.parent
    if place is None:
        raise IndexError(f"a free looks for the same iteration of {loop}, but is in none")
    return place.number
