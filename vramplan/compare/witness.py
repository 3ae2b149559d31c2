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
class LayersTold:
    """How many of a model's `total` layers go to the GPU by our account and by the engine's."""

    ours: int
    engine: int
    total: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Witness:
    """What the engine said; `is_known` is False where the family's graph is a guess.

    `card` is what it planned for, None where all was in host memory.
    """

    pipeline: str
    engine: str
    rows: tuple[WitnessRow, ...]
    is_known: bool
    card: str | None = None
    layers: LayersTold | None = None
