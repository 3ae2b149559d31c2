"""What a tape's run asks the allocator for, place by place."""

from __future__ import annotations

from vramplan.tape.allocator import Block, CachingAllocator
from vramplan.tape.conditions import Conditions
from vramplan.tape.contents import Tape
from vramplan.tape.replay import Replay

Place = tuple[str, str]  # phase, component


class _Listener(CachingAllocator):
    """An allocator that takes down the sizes it is asked for."""

    __slots__ = ("asked",)

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[int] = []

    def malloc(self, size_bytes: int) -> Block:
        """Take the size down, and serve it."""
        self.asked.append(size_bytes)
        return super().malloc(size_bytes)


class _Places(Replay):
    """A replay that puts what is asked for where it belongs."""

    def __init__(self, tape: Tape, conditions: Conditions, listener: _Listener) -> None:
        super().__init__(tape, conditions, listener, every_iteration=True)
        self.listener = listener
        self.found: dict[Place, list[int]] = {}

    def close(self) -> None:
        """Put the requests of the stretch that ends here in their place."""
        if self.listener.asked and self.component:
            place = (self.phase, self.component)
            self.found.setdefault(place, []).extend(
                size for size in self.listener.asked if size > 0
            )
            self.listener.asked.clear()
        super().close()


def requests_of(tape: Tape, conditions: Conditions) -> dict[Place, list[int]]:
    """Return the sizes of a warm run's requests, bytes, in order, by phase and component.

    Every iteration of every loop is gone through: as long as the run itself in the allocator.
    """
    run = _Places(tape, conditions, _Listener())
    run.load()
    run.run()
    run.found.clear()  # the first run sets up what the process keeps, such as cuBLAS's workspace
    run.run()
    return run.found
