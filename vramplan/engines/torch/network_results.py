"""Network results: what ControlNets leave for the denoiser, and what IP-Adapters compute in it."""

from __future__ import annotations

from collections.abc import Iterator

from vramplan.engines.torch.peak import RunAtPeak
from vramplan.model import GPU, Line, LineKind, Origin


def network_lines(run: RunAtPeak) -> Iterator[Line]:
    """Yield a line where there are ControlNets, or IP-Adapters at work."""
    band = run.beside.networks
    if band.high_bytes:
        yield Line(
            kind=LineKind.ACTIVATIONS,
            device=GPU,
            name="network results",
            phase=run.mark.phase,
            component=run.mark.component,
            band=band,
            origin=Origin.ASSUMED,
            source="what ControlNets leave for the denoiser, and their images, stays until the run "
            "ends; what an IP-Adapter computes in a layer may be at the peak",
        )
