"""The real engine's buffers beside ours for the same build."""

from __future__ import annotations

from dataclasses import dataclass

from vramplan.compare.pair import Pair


@dataclass(frozen=True, slots=True, kw_only=True)
class WitnessRow:
    """One kind of buffer: ours is the estimate, the engine's the measurement."""

    name: str
    size: Pair


@dataclass(frozen=True, slots=True, kw_only=True)
class Witness:
    """What the engine said; `is_known` is False where the family's graph is a guess."""

    engine: str
    rows: tuple[WitnessRow, ...]
    is_known: bool
