"""Allocator slack: what torch has reserved and not allocated, blocks that it keeps for reuse."""

from __future__ import annotations

from vramplan.engines.torch.peak import RunAtPeak
from vramplan.engines.torch.result import Scenario
from vramplan.model import GPU, Band, Line, LineKind, Origin
from vramplan.quick_dataclass import replace
from vramplan.units import MIB

#: one segment of torch's large pool (c10/core/AllocatorConfig.h). Which request opens one hangs on
#: the size of every request before it: other scratch, or an image a few pixels larger, moves it. On
#: the way from 64 to 656 pixels under model offload SD 1.5's least limit falls by up to 20 MiB
_SEGMENT_BYTES = 20 * MIB


def slack_line(run: RunAtPeak) -> Line:
    """Return what is reserved beyond what is allocated at the peak."""
    slacks = sorted(map(_slack, run.scenarios))
    band = Band(
        low_bytes=slacks[0], expected_bytes=_slack(run.result.expected), high_bytes=slacks[-1]
    )
    return Line(
        kind=LineKind.ALLOCATOR_SLACK,
        device=GPU,
        name="allocator slack",
        phase=run.mark.phase,
        component=None,
        band=with_chance(band),
        origin=Origin.REPLAYED,
        source="reserved less allocated at the peak: blocks torch keeps for reuse (replayed)",
    )


def with_chance(band: Band) -> Band:
    """Return the band of several replays with a segment more or less; of equal ones as it is."""
    if band.low_bytes == band.high_bytes:
        return band
    return replace(
        band,
        low_bytes=max(0, band.low_bytes - _SEGMENT_BYTES),
        high_bytes=band.high_bytes + _SEGMENT_BYTES,
    )


def _slack(scenario: Scenario) -> int:
    return scenario.reserved_peak_bytes - scenario.allocated_peak_bytes
