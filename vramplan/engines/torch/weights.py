"""Weights: each component's parameters and buffers, as they are on the device at the peak."""

from __future__ import annotations

from collections.abc import Iterator

from vramplan.engines.torch.diffusers_offload import STAYS_ON_DEVICE
from vramplan.engines.torch.peak import RunAtPeak
from vramplan.model import GPU, Band, Component, Line, LineKind, Origin


def weights_lines(run: RunAtPeak) -> Iterator[Line]:
    """Yield a line for each part that is on the device; counted, not replayed."""
    totals: dict[str, int] = {}
    for part in run.result.parts:
        totals[part.component] = totals.get(part.component, 0) + part.weights_bytes
    resident = run.resident
    for part in run.result.parts:
        held = resident.get(part.component, 0)
        if held:
            # a cast (SDXL's VAE to fp32) makes the whole component larger than it was loaded
            size = part.weights_bytes * held // totals[part.component]
            yield Line(
                kind=LineKind.WEIGHTS,
                device=GPU,
                name="weights",
                phase=None,
                component=part.name,
                band=Band.exactly(size),
                origin=Origin.EXACT,
                source="counted from the class's parameters and buffers",
            )


def components(run: RunAtPeak) -> Iterator[Component]:
    """Yield each component with its parameters, and where offloading leaves it."""
    dtype = str(run.settings.get("dtype", "fp32"))
    is_split = run.settings.get("offload", "none") != "none"
    for part in run.result.parts:
        stays = not is_split or part.component in STAYS_ON_DEVICE
        yield Component(
            name=part.name,
            parameters=part.parameters,
            dtype=dtype,
            weights_bytes=part.weights_bytes,
            device="gpu" if stays else "split",
        )
