"""The real engine's buffers beside ours for the same build."""

from __future__ import annotations

from vramplan.compare.pair import Pair
from vramplan.quick_dataclass import dataclass


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


#: what the engine rounds away, and what a build may differ by, is no contradiction
_LEAST_BYTES = 1 << 20
_LEAST_SHARE = 200


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

    @property
    def contradictions(self) -> tuple[str, ...]:
        """What the engine says otherwise of a family that is taken for known, in words."""
        if not self.is_known:
            return ()
        told = [row.name for row in self.rows if _differs(row.size)]
        if self.layers is not None and self.layers.ours != self.layers.engine:
            told.insert(0, "layers on the GPU")
        return tuple(told)


def _differs(pair: Pair) -> bool:
    ours, engines = pair.estimate_bytes or 0, pair.measured_bytes or 0
    return abs(ours - engines) > max(_LEAST_BYTES, engines // _LEAST_SHARE)
