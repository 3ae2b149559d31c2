"""The least time that a result takes: that of the bytes that have to move for it.

An estimate, and a bound: what is computed takes as long or longer, so that of two runs the one that
moves more over PCIe seems slower here beside the other than it is.
"""

from __future__ import annotations

from vramplan.quick_dataclass import dataclass

#: What a copy between system memory and the GPU reaches. Assumed: three quarters of PCIe 3.0 x16's
#: 15.75 GB/s, which is what copies of memory that is not pinned reach on faster links too.
PCIE_BYTES_PER_S = 12_000_000_000
#: What the CPU reads from system memory. Assumed: two channels of DDR4-3200, 51.2 GB/s.
HOST_BYTES_PER_S = 51_200_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """What one result (an ``image``, a ``token``, an ``item`` of a batch) takes at least."""

    seconds: float
    result: str


def slowdown(now: Pace | None, before: Pace | None) -> float | None:
    """Return how many times as long a result takes; None where either is not known."""
    if now is None or before is None or not before.seconds:
        return None
    return now.seconds / before.seconds
