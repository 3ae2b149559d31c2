"""What one run of the real code did: the raw events of a recording, before they become a tape."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TypeAlias


class Birth:
    """One device storage: the stream it was born in and its ordinal there.

    Identity matters: a call's outputs are handed to the caller's stream by moving their birth.
    """

    __slots__ = ("alive", "slot", "stream")

    def __init__(self, stream: Stream, slot: int) -> None:
        self.stream = stream
        self.slot = slot
        self.alive = True


@dataclass(slots=True)
class Alloc:
    """A storage comes to life on the device; storages of zero bytes are never recorded."""

    birth: Birth
    size_bytes: int
    operator: str


@dataclass(slots=True)
class Free:
    """The last reference to a storage is gone."""

    birth: Birth


@dataclass(slots=True)
class Workspace:
    """Scratch a library takes during one operator and gives back: `operands` are bytes it may copy.

    A convolution's are what it reads, what it writes and its filter; then its batch and its
    input's sides, which are no bytes.
    """

    kind: str  # of a convolution: `tape.convolution`
    operands: tuple[int, ...]


@dataclass(slots=True)
class Gemm:
    """A matrix product ran: the first one of a thread makes cuBLAS take its workspace.

    A backward pass runs in a thread of its own.
    """

    is_backward: bool = False


@dataclass(slots=True)
class LoopBegin:
    """A loop begins; nothing may come before its first `LoopNext`."""

    name: str


@dataclass(slots=True)
class LoopNext:
    """The next iteration of the innermost loop begins."""


@dataclass(slots=True)
class LoopEnd:
    """The innermost loop is over."""


#: events that say where a loop is
LOOP_MARKS = (LoopBegin, LoopNext, LoopEnd)


@dataclass(slots=True)
class Phase:
    """What follows belongs to this phase, and to this component where one is at work by itself."""

    name: str
    component: str = "pipeline"


@dataclass(slots=True)
class Call:
    """A routine ran here; `outputs` are the storages that outlive it, now the caller's."""

    routine: str
    dims: dict[str, int]
    outputs: list[Birth]


@dataclass(slots=True)
class Leaf:
    """A module with parameters of its own begins or ends (what sequential offload hooks)."""

    component: str
    module: int  # its number among the component's modules with tensors
    is_enter: bool


@dataclass(slots=True)
class Cast:
    """A component's weights change their element size in place, tensor by tensor."""

    component: str
    element_bytes: int


Event: TypeAlias = (
    Alloc | Free | Workspace | Gemm | LoopBegin | LoopNext | LoopEnd | Phase | Call | Leaf | Cast
)


@dataclass(slots=True)
class Stream:
    """The events of one run of one routine, or of the whole pipeline, in order."""

    routine: str
    dims: dict[str, int]
    events: list[Event] = field(default_factory=list)
    slots: int = 0
    open_loops: list[str] = field(default_factory=list)

    def new_birth(self) -> Birth:
        """Return the next storage of this stream."""
        birth = Birth(self, self.slots)
        self.slots += 1
        return birth
