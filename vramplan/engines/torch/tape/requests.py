"""What a tape's run asks the allocator for, place by place."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from vramplan.engines.torch.tape.allocator import Block, CachingAllocator
from vramplan.engines.torch.tape.conditions import Conditions
from vramplan.engines.torch.tape.contents import Tape
from vramplan.engines.torch.tape.replay import Listener, Replay

Place = tuple[str, str]  # phase, component


@dataclass(slots=True)
class Requests:
    """What is asked for at each place, bytes, in order.

    `tensors` are the tape's own; `scratch` is what libraries are taken to ask for beside them.
    """

    tensors: dict[Place, list[int]] = field(default_factory=dict)
    scratch: dict[Place, list[int]] = field(default_factory=dict)


class _Asked(CachingAllocator):
    """An allocator that takes down the sizes it is asked for."""

    __slots__ = ("asked",)

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[int] = []

    def malloc(self, size_bytes: int) -> Block:
        """Take the size down, and serve it."""
        self.asked.append(size_bytes)
        return super().malloc(size_bytes)


class _Places(Listener):
    """Puts what is asked for where it belongs."""

    def __init__(self, allocator: _Asked) -> None:
        self._asked = allocator.asked
        self._place: Place = ("", "")
        self._tensors = 0  # how many of them are asked for before the scratch
        self.found = Requests()

    def began(self, phase: str, component: str) -> None:
        """Remember where what comes belongs."""
        self._place = (phase, component)

    def ended(self, phase: str, component: str) -> None:
        """Put the requests of the stretch that ends in their place."""
        self._put(self.found.tensors, (phase, component), self._asked)
        self._asked.clear()

    def scratch_begins(self) -> None:
        """Remember which requests are tensors."""
        self._tensors = len(self._asked)

    def scratch_ends(self) -> None:
        """Put the scratch in its place."""
        self._put(self.found.scratch, self._place, self._asked[self._tensors :])
        del self._asked[self._tensors :]

    @staticmethod
    def _put(found: dict[Place, list[int]], place: Place, asked: Sequence[int]) -> None:
        sizes = [size for size in asked if size > 0]
        if sizes:
            found.setdefault(place, []).extend(sizes)


def requests_of(tape: Tape, conditions: Conditions) -> Requests:
    """Return the requests of a warm run, by phase and component.

    Every iteration of every loop is gone through: as long as the run itself in the allocator.
    """
    allocator = _Asked()
    places = _Places(allocator)
    run = Replay(tape, conditions, allocator, every_iteration=True, listener=places)
    run.load()
    run.run()
    places.found = Requests()  # the first run sets up what the process keeps: cuBLAS's workspace
    run.run()
    return places.found
