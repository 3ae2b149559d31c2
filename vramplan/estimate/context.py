"""The CUDA context: what a process takes before its first tensor, outside every torch counter.

No GPU has been measured for this table yet: the band is the range of published figures (256 MiB on
an RTX 3090; about 300, 400, 457 and 616 MiB elsewhere), its middle their median. It grows as
kernels load.
"""

from __future__ import annotations

from vramplan.model import Band, Origin, Term
from vramplan.units import MIB

PUBLISHED_MIB = (256, 300, 400, 457, 616)

SOURCE = (
    "published by users of several GPUs: 256 MiB (RTX 3090), about 300, 400, 457 and 616 MiB; "
    "not measured by vramplan yet"
)


def context_band() -> Band:
    """Return the band of one process's CUDA context, bytes."""
    figures = sorted(PUBLISHED_MIB)
    return Band(
        low_bytes=figures[0] * MIB,
        expected_bytes=figures[len(figures) // 2] * MIB,
        high_bytes=figures[-1] * MIB,
    )


def context_term() -> Term:
    """Return the budget's line for the CUDA context."""
    return Term(
        name="CUDA context",
        phase=None,
        component=None,
        band=context_band(),
        origin=Origin.PUBLISHED,
        source=SOURCE,
    )
