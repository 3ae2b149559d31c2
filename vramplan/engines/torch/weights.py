"""Weights: each component's parameters and buffers, as they are on the device at the peak.

Quantised ones, adapters and groups count as the settings have them (`changed_weights`).
"""

from __future__ import annotations

from collections.abc import Iterator

from vramplan.engines.torch.changed_weights import (
    are_changed,
    changes_at,
    how_sure,
    is_grouped,
    whole_bytes,
)
from vramplan.engines.torch.diffusers_offload import stays_on_device
from vramplan.engines.torch.peak import RunAtPeak
from vramplan.model import GPU, Band, Component, Line, LineKind, Origin


def weights_lines(run: RunAtPeak) -> Iterator[Line]:
    """Yield a line for each part that is on the device; counted, not replayed."""
    totals: dict[str, int] = {}
    for part in run.result.parts:
        totals[part.component] = totals.get(part.component, 0) + part.weights_bytes
    resident = run.resident
    found = changes_at(run.pipeline, run.settings) if are_changed(run.settings) else None
    for part in run.result.parts:
        held = resident.get(part.component, 0)
        if held:
            # a cast (SDXL's VAE to fp32) makes the whole component larger than it was loaded
            size = part.weights_bytes * held // totals[part.component]
            told = None if found is None else how_sure(found, part.component, part.name)
            origin, source = told or (
                Origin.EXACT,
                "counted from the class's parameters and buffers",
            )
            yield Line(
                kind=LineKind.WEIGHTS,
                device=GPU,
                name="weights",
                phase=None,
                component=part.name,
                band=Band.exactly(size),
                origin=origin,
                source=source,
            )


def components(run: RunAtPeak) -> Iterator[Component]:
    """Yield each component with its parameters, and where offloading leaves it."""
    dtype = str(run.settings.get("dtype", "fp32"))
    is_split = run.settings.get("offload", "none") != "none"
    found = changes_at(run.pipeline, run.settings) if are_changed(run.settings) else None
    kept = stays_on_device(run.pipeline.run_class, str(run.settings.get("offload", "none")))
    own = {spec.name: spec.dtype or dtype for spec in run.pipeline.components}
    whole = whole_bytes(run.pipeline, run.settings) if is_grouped(run.settings) else {}
    for part in run.result.parts:
        stays = not is_split or part.component in kept
        loaded = own.get(part.component, dtype)
        yield Component(
            name=part.name,
            parameters=part.parameters,
            dtype=loaded if found is None else found.dtype_of(part, loaded),
            weights_bytes=whole.get(part.name, part.weights_bytes),
            device="gpu" if stays else "split",
        )
