"""What a tape's run asks the allocator for, place by place."""

from __future__ import annotations

from dataclasses import dataclass, field

from vramplan.engines.torch.tape.allocator import Block, CachingAllocator
from vramplan.engines.torch.tape.conditions import Conditions
from vramplan.engines.torch.tape.contents import Tape
from vramplan.engines.torch.tape.replay import Replay

Place = tuple[str, str]  # phase, component


@dataclass(slots=True)
class Requests:
    """What is asked for at each place, bytes, in order.

    `tensors` are the tape's own; `scratch` is what libraries are taken to ask for beside them.
    """

    tensors: dict[Place, list[int]] = field(default_factory=dict)
    scratch: dict[Place, list[int]] = field(default_factory=dict)


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
        self.found = Requests()

    def close(self) -> None:
        """Put the requests of the stretch that ends here in their place."""
        if self.component:
            self._put(self.found.tensors, self.listener.asked)
        super().close()

    def _workspace(self, kind: str, operands: tuple[int, ...]) -> None:
        tensors = len(self.listener.asked)
        super()._workspace(kind, operands)
        scratch = self.listener.asked[tensors:]
        del self.listener.asked[tensors:]
        self._put(self.found.scratch, scratch)

    def _put(self, found: dict[Place, list[int]], asked: list[int]) -> None:
        sizes = [size for size in asked if size > 0]
        if sizes:
            found.setdefault((self.phase, self.component), []).extend(sizes)
        asked.clear()


def requests_of(tape: Tape, conditions: Conditions) -> Requests:
    """Return the requests of a warm run, by phase and component.

    Every iteration of every loop is gone through: as long as the run itself in the allocator.
    """
    run = _Places(tape, conditions, _Listener())
    run.load()
    run.run()
    run.found = Requests()  # the first run sets up what the process keeps: cuBLAS's workspace
    run.run()
    return run.found
