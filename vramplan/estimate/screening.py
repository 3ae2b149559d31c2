"""Whether a torch run would fit: one replay or two, to choose what is worth an estimate.

An estimate looks for least limits; a screening only tries the budget. It answers the same question
but for the gaps that a least limit closes (see `least_limit`), so what it passes is judged again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from vramplan.estimate.context import context_band
from vramplan.estimate.replayed import conditions_at
from vramplan.estimate.torch_run import find_tape, open_tape
from vramplan.estimate.workspace import convolution_scratch, cublas_band
from vramplan.model import Pipeline, Settings
from vramplan.settings import SPILLING_PLATFORMS
from vramplan.tape.conditions import WorkspaceModel
from vramplan.tape.rehearsal import Rehearsal, rehearse


@dataclass(frozen=True, slots=True, kw_only=True)
class Screening:
    """What a run does with a budget: with the most it may need, and with what is expected."""

    fits: bool
    completes: bool
    live_bytes: int  # at the run's peak, as expected; where it fits at once, at the most


def screen(
    pipeline: Pipeline,
    settings: Settings,
    compute_capability: str,
    budget_bytes: int,
    *,
    folders: Sequence[Path],
) -> Screening:
    """Return whether a torch pipeline would fit a budget, the CUDA context included.

    Raises TapeError where there is no tape, or none that holds for these settings.
    """
    tape = open_tape(find_tape(pipeline, folders))
    conditions = conditions_at(pipeline, settings, compute_capability, tape)
    scratch = convolution_scratch(compute_capability, conditions.element_bytes)
    context, cublas = context_band(), cublas_band(compute_capability)[0]
    spills = settings.get("platform") in SPILLING_PLATFORMS

    def rehearsed(workspace: WorkspaceModel) -> Rehearsal:
        changed = replace(conditions, workspace_bytes=workspace)
        expandable = settings.get("expandable_segments") == "on"
        return rehearse(tape, changed, expandable_segments=expandable)

    def holds(run: Rehearsal, limit_bytes: int) -> bool:
        if spills:  # nothing is given back there before memory spills
            return run.trace.reserved_peak_bytes <= limit_bytes
        return run.failure(limit_bytes) is None

    most = rehearsed(scratch.high_bytes)
    extra_bytes = cublas.high_bytes - cublas.expected_bytes
    if holds(most, budget_bytes - context.high_bytes - extra_bytes):
        live_bytes = most.trace.allocated_peak_bytes
        return Screening(fits=True, completes=True, live_bytes=live_bytes)
    expected = rehearsed(conditions.workspace_bytes)
    return Screening(
        fits=False,
        completes=holds(expected, budget_bytes - context.expected_bytes),
        live_bytes=expected.trace.allocated_peak_bytes,
    )
