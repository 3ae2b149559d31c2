"""A stream of raw events → a tree of sequences and loops, with every free written as an address.

Addresses are relative, so the code of one iteration reads the same as the code of the next. Inside
a run of frees the order does not matter to an allocator (coalescing is confluent): a run is sorted.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TypeAlias

from vramplan.engines.torch.record.stream import (
    Alloc,
    Birth,
    Call,
    Cast,
    Free,
    Gemm,
    Leaf,
    LoopBegin,
    LoopEnd,
    LoopNext,
    Phase,
    Stream,
    Workspace,
)
from vramplan.errors import RecordingError


@dataclass(frozen=True, slots=True)
class At:
    """An iteration of a finished loop, counted from its first (0) and from its last (-1)."""

    start: int
    end: int


#: how an iteration is chosen: 'all' of a finished loop, one of it, or 'only' where there was one
#: (which is its first, its last and all); ('same', name), the one with our number in a loop of that
#: name (layers: each frees its own of an earlier pass); inside the loop: ('back', d), d ago
Selector: TypeAlias = str | At | tuple[str, int | str]
Step: TypeAlias = tuple[int, Selector]


@dataclass(frozen=True, slots=True)
class Address:
    """A slot: climb `up` sequences, go down `path` of (loop ordinal, iteration), take `slot`."""

    up: int
    path: tuple[Step, ...]
    slot: int


@dataclass(slots=True, eq=False)
class Sequence:
    """The events of a routine, or of one iteration of a loop."""

    items: list[Item] = field(default_factory=list)
    slots: int = 0
    loops: int = 0
    parent: Loop | None = None
    number: int = 0  # which iteration of `parent` this is


@dataclass(slots=True, eq=False)
class Loop:
    """A loop as it ran: its iterations, one sequence each."""

    name: str
    ordinal: int
    owner: Sequence
    iterations: list[Sequence] = field(default_factory=list)


@dataclass(slots=True)
class FreeRun:
    """Frees with nothing between them."""

    addresses: list[Address] = field(default_factory=list)


Item: TypeAlias = Alloc | Workspace | Gemm | Phase | Call | Cast | Leaf | Loop | FreeRun


def build_tree(stream: Stream) -> Sequence:
    """Return the tree of a finished stream."""
    root = here = Sequence()
    loops: list[Loop] = []
    homes: list[tuple[Sequence, int]] = []  # by the stream's slot
    pending: list[Birth] = []

    def settle() -> None:
        if pending:
            here.items.append(FreeRun(_addresses(here, [homes[b.slot] for b in pending])))
            pending.clear()

    def house(births: int) -> None:
        for _ in range(births):
            homes.append((here, here.slots))
            here.slots += 1

    for event in stream.events:
        if isinstance(event, Free):
            if event.birth.stream is not stream:
                raise RecordingError(f"{stream.routine}: frees a tensor that belongs to its caller")
            pending.append(event.birth)
            continue
        settle()
        if isinstance(event, LoopBegin):
            loops.append(Loop(event.name, here.loops, here))
            here.loops += 1
            here.items.append(loops[-1])
        elif isinstance(event, LoopNext):
            here = Sequence(parent=loops[-1], number=len(loops[-1].iterations))
            loops[-1].iterations.append(here)
        elif isinstance(event, LoopEnd):
            here = loops.pop().owner
        else:
            house(len(event.outputs) if isinstance(event, Call) else int(isinstance(event, Alloc)))
            here.items.append(event)
    settle()
    return root


def _addresses(here: Sequence, targets: list[tuple[Sequence, int]]) -> list[Address]:
    """Return the addresses of a run of frees, sorted, whole loops written as one."""
    plain = [_address(here, sequence, slot) for sequence, slot in targets]
    grouped: dict[tuple[int, tuple[tuple[int, None], ...], int], list[tuple[Sequence, int]]] = {}
    for sequence, slot in targets:
        loop = sequence.parent
        if loop is not None and not _is_inside(here, loop):
            address = _address(here, sequence, slot)
            key = (address.up, tuple((ordinal, None) for ordinal, _ in address.path), address.slot)
            grouped.setdefault(key, []).append((sequence, slot))
    for members in grouped.values():
        loop = members[0][0].parent
        if loop is None or len(members) < 2:
            continue
        if len({id(s) for s, _ in members}) == _count(loop, here):
            first = _address(here, *members[0])
            done = {_address(here, s, slot) for s, slot in members}
            plain = [a for a in plain if a not in done]
            plain.append(
                Address(first.up, tuple((ordinal, "all") for ordinal, _ in first.path), first.slot)
            )
    return sorted(plain, key=_order)


def _order(address: Address) -> tuple[object, ...]:
    """Sort by place first, so that runs compare item by item whatever their loops' lengths."""
    return (
        address.up,
        len(address.path),
        [o for o, _ in address.path],
        address.slot,
        [_rank(selector) for _, selector in address.path],
    )


def _rank(selector: Selector) -> tuple[int, str]:
    return (selector.end, "") if isinstance(selector, At) else (0, repr(selector))


def _count(loop: Loop, here: Sequence) -> int:
    """How many sequences all iterations on the way to `loop` make, seen from `here`."""
    total = len(loop.iterations)
    outer = loop.owner.parent
    while outer is not None and not _is_inside(here, outer):
        total = sum(1 for _ in outer.iterations) * total
        outer = outer.owner.parent
    return total


def _is_inside(sequence: Sequence, loop: Loop) -> bool:
    place: Sequence | None = sequence
    while place is not None and place.parent is not None:
        if place.parent is loop:
            return True
        place = place.parent.owner
    return False


def _ancestors(sequence: Sequence) -> list[Sequence]:
    chain = [sequence]
    while chain[-1].parent is not None:
        chain.append(chain[-1].parent.owner)
    return chain


def _address(here: Sequence, target: Sequence, slot: int) -> Address:
    chain = _ancestors(here)
    steps: list[Step] = []
    place = target
    while all(place is not ancestor for ancestor in chain):
        loop = place.parent
        if loop is None:
            raise RecordingError("a free has no common ancestor with its allocation")
        inside = next((c for c in chain if c.parent is loop), None)
        selector: Selector = At(place.number, place.number - len(loop.iterations))
        if inside is not None:
            selector = ("back", inside.number - place.number)
        elif len(loop.iterations) == 1:
            selector = "only"
        elif any(_is_peer(c, place) for c in chain):
            selector = ("same", loop.name)
        steps.append((loop.ordinal, selector))
        place = loop.owner
    up = next(i for i, ancestor in enumerate(chain) if ancestor is place)
    return Address(up, tuple(reversed(steps)), slot)


def _is_peer(one: Sequence, other: Sequence) -> bool:
    """True where both are the same iteration of two runs of one loop."""
    if one.parent is None or other.parent is None or one.parent is other.parent:
        return False
    return (one.parent.name, one.number) == (other.parent.name, other.number)
