"""What one stretch of a run held."""

from __future__ import annotations

from vramplan.quick_dataclass import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """What one stretch of the run held: its peaks, and what it left behind. Bytes."""

    phase: str
    component: str
    allocated_peak_bytes: int
    reserved_peak_bytes: int
    allocated_bytes: int
    reserved_bytes: int
    weights: tuple[tuple[str, int], ...]  # components on the device, and their bytes there
