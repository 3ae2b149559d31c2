"""Gradients: one for each parameter, all of them live while the optimiser steps."""

from __future__ import annotations

from collections.abc import Iterator

from vramplan.engines.torch.peak import OPTIMIZER, RunAtPeak
from vramplan.model import GPU, Band, Line, LineKind, Origin


def gradients_lines(run: RunAtPeak) -> Iterator[Line]:
    """Yield all gradients while the optimiser steps.

    While the backward pass runs, those it has made so far are among the activations.
    """
    if not run.keeps_training_state or run.mark.component != OPTIMIZER:
        return
    yield Line(
        kind=LineKind.GRADIENTS,
        device=GPU,
        name="gradients",
        phase=run.mark.phase,
        component=None,
        band=Band.exactly(run.parameters_bytes),
        origin=Origin.REPLAYED,
        source="one for each parameter, counted; part of what is live at the tape's peak",
    )
