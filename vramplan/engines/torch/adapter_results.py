"""Adapter results: what a LoRA adapter computes beside a layer's own, until both are added."""

from __future__ import annotations

from collections.abc import Iterator

from vramplan.engines.torch.peak import RunAtPeak
from vramplan.model import GPU, Band, Line, LineKind, Origin


def adapter_lines(run: RunAtPeak) -> Iterator[Line]:
    """Yield a line where there are adapters that are not fused into the weights.

    A tape is replayed with them (`adapted_code`); what DoRA makes anew of a weight is beside it.
    """
    replayed, made = run.adapter_bytes, run.beside.adapters
    source = (
        "peft's own allocations behind each layer that has one, where the tape has a result of its "
        "size: no less than they take, and they may not be at the peak"
    )
    band = Band(low_bytes=0, expected_bytes=replayed, high_bytes=replayed) + made
    if band.high_bytes:
        yield Line(
            kind=LineKind.ACTIVATIONS,
            device=GPU,
            name="adapter results",
            phase=run.mark.phase,
            component=run.mark.component,
            band=band,
            origin=Origin.ASSUMED,
            source=source,
        )
