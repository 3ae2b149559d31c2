"""Measures an engine from outside: what its processes hold before, while and after it works."""

from __future__ import annotations

import struct
import time
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field

from vramplan.engine_buffer import EngineBuffer
from vramplan.measurement.reading import DeviceMemory
from vramplan.measurement.run import Failure, Held, PhaseEnd, Stretch
from vramplan.probe.protocol import Probe
from vramplan.runner.phase_ends import PhaseEnds, SmiEyes
from vramplan.runner.supervisor import PeakWatch


def _nobody(_memory: DeviceMemory) -> int | None:
    return None


@dataclass(frozen=True, kw_only=True)
class EngineTools:
    """How an engine is looked at; `own` tells what its processes hold of a card.

    Without a `probe` (no GPU, or one on another machine) only what the engine says is known.
    """

    probe: Probe | None = None
    own: Callable[[DeviceMemory], int | None] = _nobody
    watch: Callable[[], AbstractContextManager[PeakWatch]] | None = None
    smi: Callable[[], str | None] = lambda: None
    smi_eyes: SmiEyes | None = None
    progress: Callable[[str], None] = lambda _text: None
    limit_seconds: float = 600.0


@dataclass(slots=True)
class EngineOutcome:
    """What came of it."""

    before: DeviceMemory | None = None
    stretches: list[Stretch] = field(default_factory=list)
    phase_ends: list[PhaseEnd] = field(default_factory=list)
    buffers: list[EngineBuffer] = field(default_factory=list)
    held: Held | None = None
    failure: Failure | None = None
    facts: dict[str, str] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    period_s: float | None = None


class EngineMeter:
    """Keeps the account of one engine's phases."""

    def __init__(self, tools: EngineTools, outcome: EngineOutcome) -> None:
        self._tools = tools
        self._outcome = outcome
        self.phase = "load"
        self._ends = PhaseEnds(tools.probe, tools.smi_eyes, tools.own)
        outcome.phase_ends = self._ends.taken
        outcome.before = self._look()

    def _look(self) -> DeviceMemory | None:
        return self._tools.probe.read().device if self._tools.probe is not None else None

    @contextmanager
    def watching(self) -> Iterator[PeakWatch | None]:
        """Sample the card for as long as the engine works."""
        watch = self._tools.watch
        with watch() if watch is not None else nullcontext() as seen:
            self._seen = seen
            try:
                yield seen
            finally:
                self._outcome.notes += self._ends.notes
            self._outcome.period_s = seen.period_s if seen is not None else None

    _seen: PeakWatch | None = None
    _ended: float | None = None

    @contextmanager
    def stretch(self, phase: str, turn: str, component: str = "language_model") -> Iterator[None]:
        """Measure what is done inside as `phase`; where it fails the phase is known.

        An engine goes on while the card is looked at: that time is of the phase that follows.
        """
        self.phase = phase
        self._tools.progress(f"{turn} run: {phase}" if turn != "load" else "loading")
        began = time.monotonic() if self._ended is None else self._ended
        yield
        self._ended = ended = time.monotonic()
        memory = self._look()
        own = self._tools.own(memory) if memory is not None else None
        peak = self._seen.device_peak(began, ended) if self._seen is not None else None
        used = memory.used_bytes if memory is not None else None
        self._outcome.stretches.append(
            Stretch(
                phase=phase,
                component=component,
                turn=turn,
                began_s=began,
                ended_s=ended,
                device_used_bytes=used,
                process_used_bytes=own,
                device_peak_bytes=max((s for s in (used, peak) if s is not None), default=None),
                process_peak_bytes=own,
            )
        )
        self._ends.take(turn, phase, component)

    def hold(self) -> None:
        """Look by every way at once, with everything still held."""
        memory = self._look()
        self._outcome.held = Held(
            device=memory,
            torch=None,
            process_used_bytes=self._tools.own(memory) if memory is not None else None,
            smi=self._tools.smi() if memory is not None else None,
        )


def a_prompt(settings: Mapping[str, object]) -> str:
    """Return a prompt that fills a batch: a longer one takes no more memory.

    It leaves half of a sequence's context for the template and the answer: llama-server refuses
    what is longer ("request (2614 tokens) exceeds the available context size (512 tokens)").
    """
    batch, context, parallel = (settings.get(key) for key in ("ubatch", "context", "parallel"))
    words = min(batch, 512) if isinstance(batch, int) else 512
    if isinstance(context, int):
        share = context // parallel if isinstance(parallel, int) and parallel else context
        words = min(words, share // 2)
    return "word " * max(words, 1)


def a_picture(side: int = 64) -> bytes:
    """Return a small PNG, a gradient: what is in a picture does not matter, its size may."""
    rows = b"".join(
        b"\x00" + bytes(value for x in range(side) for value in (x * 3 % 256, y * 3 % 256, 90))
        for y in range(side)
    )

    def chunk(kind: bytes, data: bytes) -> bytes:
        body = kind + data
        return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))

    head = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", head)
        + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )
