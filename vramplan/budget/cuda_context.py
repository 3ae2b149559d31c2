"""The CUDA context: what a process takes before its first tensor, outside every torch counter.

Where a GPU of the architecture was measured its figures are taken (`learned`), else the range of
published ones (256 MiB on an RTX 3090; about 300, 400, 457 and 616 MiB elsewhere), its middle their
median. It grows as kernels load.
"""

from __future__ import annotations

from vramplan.budget.learned import learned
from vramplan.model import GPU, Band, Line, LineKind, Origin
from vramplan.units import MIB

PUBLISHED_MIB = (256, 300, 400, 457, 616)

SOURCE = (
    "published by users of several GPUs: 256 MiB (RTX 3090), about 300, 400, 457 and 616 MiB; "
    "not measured by vramplan on this architecture yet"
)


def context_band(compute_capability: str | None = None) -> Band:
    """Return the band of one torch process's CUDA context on an architecture, bytes.

    None is for a process that is not torch's (a ggml engine), or an architecture nobody knows.
    """
    known = learned().contexts.get(compute_capability) if compute_capability else None
    if known is not None:
        return known.band
    figures = sorted(PUBLISHED_MIB)
    return Band(
        low_bytes=figures[0] * MIB,
        expected_bytes=figures[len(figures) // 2] * MIB,
        high_bytes=figures[-1] * MIB,
    )


def context_source(compute_capability: str) -> tuple[Origin, str]:
    """Return where the band comes from."""
    known = learned().contexts.get(compute_capability)
    if known is not None:
        return Origin.MEASURED, known.source
    return Origin.PUBLISHED, SOURCE


def context_line(compute_capability: str) -> Line:
    """Return the budget's line for the CUDA context."""
    origin, source = context_source(compute_capability)
    return Line(
        kind=LineKind.CUDA_CONTEXT,
        device=GPU,
        name="CUDA context",
        phase=None,
        component=None,
        band=context_band(compute_capability),
        origin=origin,
        source=source,
    )
