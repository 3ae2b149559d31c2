"""The optimiser's state: Adam's two moments, which live from its first step on."""

from __future__ import annotations

from collections.abc import Iterator

from vramplan.engines.torch.peak import RunAtPeak
from vramplan.model import GPU, Band, Line, LineKind, Origin


def optimizer_state_lines(run: RunAtPeak) -> Iterator[Line]:
    """Yield the moments that a training step keeps beside its weights, a share of what is live."""
    if not run.keeps_training_state:
        return
    yield Line(
        kind=LineKind.OPTIMIZER_STATE,
        device=GPU,
        name="optimiser state (Adam)",
        phase=run.mark.phase,
        component=None,
        band=Band.exactly(2 * run.parameters_bytes),
        origin=Origin.REPLAYED,
        source="two moments for each parameter, counted; part of what is live at the tape's peak",
    )
