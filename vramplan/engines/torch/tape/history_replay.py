"""A measured history through the allocator model: does it take the same segments?

The model starts with the segments as they stood, at their addresses, and is asked for what torch
was asked for. Where torch took a segment from the driver, the model's next one is put at the same
address, because best fit breaks ties by address. What was given back to the driver is given back.
"""

from __future__ import annotations

from vramplan.compare.events import HistoryReplay
from vramplan.engines.torch.tape.allocator import CachingAllocator
from vramplan.engines.torch.tape.blocks import Block
from vramplan.errors import MeasurementError
from vramplan.measurement.history import Action, History, HistoryEvent


def replay_history(history: History) -> HistoryReplay:
    """Run a history through the allocator model.

    Raises MeasurementError for expandable segments, which are mapped page by page at addresses that
    a history does not tell, and for a history that does not hold together.
    """
    if any(segment.is_expandable for segment in history.segments):
        raise MeasurementError("a history of expandable segments cannot be replayed")
    return _HistoryRun(history).run()


class _HistoryRun:
    """One history under way."""

    def __init__(self, history: History) -> None:
        self._history = history
        self._model = CachingAllocator()
        self._held: dict[int, Block] = {}  # torch's address -> the model's block
        self._taken: list[int] = []
        self._measured: list[int] = []
        self._reserved = self._peak = history.reserved_bytes
        self._difference: str | None = None
        for segment in history.segments:
            ranges = [(block.size_bytes, block.is_used) for block in segment.blocks]
            blocks = self._model.adopt_segment(segment.address, ranges, is_small=segment.is_small)
            self._held |= {block.address: block for block in blocks}

    def run(self) -> HistoryReplay:
        """Go through the events."""
        for number, event in enumerate(self._history.events):
            self._take(number, event)
        return HistoryReplay(
            segments_bytes=tuple(self._taken),
            measured_segments_bytes=tuple(self._measured),
            reserved_peak_bytes=self._model.peak_reserved_bytes,
            measured_reserved_peak_bytes=self._peak,
            allocated_peak_bytes=self._model.peak_allocated_bytes,
            first_difference=self._difference,
        )

    def _take(self, number: int, event: HistoryEvent) -> None:
        match event.action:
            case Action.SEGMENT_ALLOC:
                self._measured.append(event.size_bytes)
                self._reserved += event.size_bytes
                self._peak = max(self._peak, self._reserved)
                self._model.place_next_segment(event.address)
            case Action.SEGMENT_FREE:
                self._reserved -= event.size_bytes
                if not self._model.give_back(event.address):
                    self._note(number, f"a segment of {event.size_bytes} bytes is still in use")
            case Action.ALLOC:
                self._allocate(number, event)
            case Action.FREE_COMPLETED:
                block = self._held.pop(event.address, None)
                if block is None:
                    raise MeasurementError(f"event {number} frees what was not allocated")
                self._model.free(block)
            case Action.SEGMENT_MAP | Action.SEGMENT_UNMAP:
                raise MeasurementError("a history of expandable segments cannot be replayed")
            case _:
                pass

    def _allocate(self, number: int, event: HistoryEvent) -> None:
        before = self._model.reserved_bytes
        block = self._model.malloc(event.size_bytes)
        grown = self._model.reserved_bytes - before
        if grown:
            self._taken.append(grown)
        if len(self._taken) != len(self._measured) or self._taken[-1:] != self._measured[-1:]:
            torch = f"{self._measured[-1]} bytes" if self._measured else "nothing"
            model = f"{self._taken[-1]} bytes" if self._taken else "nothing"
            self._note(number, f"torch last took {torch}, the model {model}")
        if event.address in self._held:
            raise MeasurementError(f"event {number} allocates what is in use")
        self._held[event.address] = block

    def _note(self, number: int, text: str) -> None:
        if self._difference is None:
            self._difference = f"event {number}: {text}"
