"""Unpacked weights: the matrix that a quantised layer makes of its numbers while it runs."""

from __future__ import annotations

from collections.abc import Iterator

from vramplan.engines.torch.peak import RunAtPeak
from vramplan.model import GPU, Line, LineKind, Origin


def unpacked_lines(run: RunAtPeak) -> Iterator[Line]:
    """Yield a line where weights are quantised.

    It is a band from nothing: that a layer runs just when most is live is not recorded.
    """
    band = run.beside.unpacked
    if band.high_bytes:
        yield Line(
            kind=LineKind.WORKSPACE,
            device=GPU,
            name="unpacked weights",
            phase=run.mark.phase,
            component=run.mark.component,
            band=band,
            origin=Origin.ASSUMED,
            source="the largest quantised layer, unpacked while it runs: it may not be at the peak",
        )
