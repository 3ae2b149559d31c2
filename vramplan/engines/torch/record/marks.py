"""What a recipe says about the run under way: its phases, and where loops begin and end.

The recorder writes it into a stream; a run on a real device needs the phases alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from vramplan.engines.torch.record.stream import (
    Alloc,
    Event,
    Free,
    LoopBegin,
    LoopEnd,
    LoopNext,
    Phase,
    Stream,
)


class Marks:
    """Takes down what recipes say; `stream` is where it belongs now."""

    def __init__(self, stream: Stream) -> None:
        self.stream = stream
        self.until: dict[str, str] = {}  # loop -> the operator that ends it
        self.beat: tuple[str, str, int] | None = (
            None  # a loop in C-like code: its operator, every how many
        )
        self.beats = 0

    def write(self, event: Event) -> None:
        """Take an event down."""
        raise NotImplementedError

    def begin_phase(self, name: str, component: str = "pipeline") -> None:
        """Say that what follows belongs to phase `name`, and is `component`'s work."""
        self.write(Phase(name, component))

    def iterate(self, loop: str, until: str | None = None) -> None:
        """Begin the next iteration of `loop`, opening the loop if it is not open.

        The loop ends before the next operator called `until`, or when `end_loop` says so.
        """
        if until is not None:
            self.until[loop] = until
        if loop not in self.stream.open_loops:
            self.stream.open_loops.append(loop)
            self.write(LoopBegin(loop))
        while self.stream.open_loops[-1] != loop:
            self.end_loop()
        self.write(LoopNext())

    @contextmanager
    def beating(self, loop: str, operator: str, every: int) -> Iterator[None]:
        """Take each `every`-th `operator` for the beginning of an iteration of `loop`.

        For loops in whose body nothing can be hooked.
        """
        self.beat, self.beats = (loop, operator, every), 0
        try:
            yield
        finally:
            self.beat = None
            if loop in self.stream.open_loops:
                self.end_loop()

    def end_loop(self) -> None:
        """Close the innermost open loop."""
        self.stream.open_loops.pop()
        self.write(LoopEnd())

    def end_loops(self) -> None:
        """Close every loop of the current stream."""
        while self.stream.open_loops:
            self.end_loop()


class WrittenMarks(Marks):
    """Marks that are events among those of the run: what a recording device takes down."""

    def write(self, event: Event) -> None:
        """Append an event to the stream that is being recorded."""
        self.stream.events.append(event)

    @contextmanager
    def into(self, stream: Stream) -> Iterator[None]:
        """Record into `stream` for a while."""
        outer, self.stream = self.stream, stream
        try:
            yield
        finally:
            self.stream = outer

    @contextmanager
    def holding(self, size_bytes: int, operator: str) -> Iterator[None]:
        """Let so many bytes live while an operator runs; nothing where they are none."""
        if not size_bytes:
            yield
            return
        birth = self.stream.new_birth()
        self.write(Alloc(birth, size_bytes, operator))
        yield
        self.write(Free(birth))
