"""Activations: intermediate results that are live at the peak, not their sum over the run."""

from __future__ import annotations

from vramplan.engines.torch.cublas_workspace import cublas_band
from vramplan.engines.torch.peak import OPTIMIZER, RunAtPeak
from vramplan.model import GPU, Band, Line, LineKind, Origin


def activations_line(run: RunAtPeak, kept_bytes: int) -> Line:
    """Return what is live at the peak beside weights, cuBLAS's workspace and what training keeps.

    `kept_bytes` are those of gradients and the optimiser's state; adapters' results have a line of
    their own.
    """
    held = sum(run.resident.values()) + cublas_band(run.compute_capability)[0].expected_bytes
    return Line(
        kind=LineKind.ACTIVATIONS,
        device=GPU,
        name=_name(run),
        phase=run.mark.phase,
        component=run.mark.component,
        band=Band.exactly(max(0, run.floor_bytes - held - kept_bytes - run.adapter_bytes)),
        origin=Origin.REPLAYED,
        source=f"{_tape(run)}, most that is live at once",
    )


def _tape(run: RunAtPeak) -> str:
    return "its recording" if run.pipeline.is_recorded_here else f"tape {run.pipeline.tape}"


def _name(run: RunAtPeak) -> str:
    if run.settings.get("offload") == "sequential":
        return "activations and the layer's weights"
    if run.settings.get("mode") == "train":
        if run.mark.component == OPTIMIZER:
            return "activations of the optimiser"
        return "activations and gradients"
    return "activations"
