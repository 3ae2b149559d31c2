"""What a replay leaves behind: its marks, or where it ran out of memory."""

from __future__ import annotations

from collections.abc import Iterable

from vramplan.engines.torch.tape.mark import Mark


class Trace:
    """A completed replay, stretch by stretch; `retries` are the allocator's."""

    __slots__ = ("marks", "retries")

    def __init__(self, *, marks: Iterable[Mark] = (), retries: int = 0) -> None:
        self.marks = list(marks)
        self.retries = retries

    @property
    def allocated_peak_bytes(self) -> int:
        """Highest sum of live tensors."""
        return max(mark.allocated_peak_bytes for mark in self.marks)

    @property
    def reserved_peak_bytes(self) -> int:
        """Most that torch held from the driver."""
        return max(mark.reserved_peak_bytes for mark in self.marks)


class ReplayOutOfMemory(Exception):
    """The run failed for want of memory, in this phase, at this component, asking for this much."""

    def __init__(self, phase: str, component: str, asked_bytes: int) -> None:
        super().__init__(f"out of memory in {phase} at {component}, asking for {asked_bytes} bytes")
        self.phase = phase
        self.component = component
        self.asked_bytes = asked_bytes
