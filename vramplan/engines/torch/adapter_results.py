"""Adapter results: what a LoRA adapter computes beside a layer's own, until both are added."""

from __future__ import annotations

from collections.abc import Iterator

from vramplan.engines.torch.peak import RunAtPeak
from vramplan.model import GPU, Line, LineKind, Origin


def adapter_lines(run: RunAtPeak) -> Iterator[Line]:
    """Yield a line where there are adapters that are not fused into the weights."""
    band = run.beside.adapters
    if band.high_bytes:
        yield Line(
            kind=LineKind.ACTIVATIONS,
            device=GPU,
            name="adapter results",
            phase=run.mark.phase,
            component=run.mark.component,
            band=band,
            origin=Origin.ASSUMED,
            source="a share of what is live: results of adapters beside those of their layers",
        )
