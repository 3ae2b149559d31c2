"""The verdict on a torch pipeline: it fits a card, or fails at a place that is named."""

from __future__ import annotations

from collections.abc import Sequence

from vramplan.budget.verdict import grade, spills
from vramplan.budget.words import compare_with_budget, describe_room
from vramplan.engines.torch.estimate import estimate_torch
from vramplan.engines.torch.pipeline import TorchPipeline
from vramplan.model import Card, Component, Estimate, Judgement, LineKind, Settings, VerdictKind
from vramplan.units import format_size

#: diffusers' ways to keep components in system memory, cheapest first
OFFLOAD_MODES = ("none", "model", "sequential")


def judge_torch(
    pipeline: TorchPipeline, settings: Settings, card: Card, budget_bytes: int
) -> Judgement:
    """Return what a pipeline does on a card; ``offload=auto`` takes the first mode that fits.

    Raises TapeError where there is no tape, or none that holds for these settings.
    """
    is_auto = settings.get("offload") == "auto"
    modes: Sequence[str] = OFFLOAD_MODES if is_auto else (str(settings.get("offload", "none")),)
    for mode in modes:
        tried = {**settings, "offload": mode} if "offload" in settings else dict(settings)
        found = estimate_torch(pipeline, tried, card)
        kind = grade(found.need.band, budget_bytes, spills=spills(settings))
        if not kind.is_failure:
            break
    reason = _reason(found, kind, budget_bytes)
    if not is_auto or mode == "none":
        return Judgement(estimate=found, kind=kind, reason=reason)
    if kind.is_failure:
        return Judgement(estimate=found, kind=kind, reason=f"even with {mode} offload it {reason}")
    waits = "its components wait in system memory until they are needed"
    return Judgement(
        estimate=found,
        kind=VerdictKind.OFFLOAD,
        reason=f"runs with {mode} offload, {waits}: {reason}",
    )


def _reason(found: Estimate, kind: VerdictKind, budget_bytes: int) -> str:
    where = f"{found.need.phase} at {found.need.component}"
    if kind is VerdictKind.OOM:
        short = compare_with_budget(found.need.band, budget_bytes)
        return f"fails in {where}: {short}; {_weights(found)}"
    if kind is VerdictKind.OFFLOAD:
        excess = format_size(found.need.band.expected_bytes - budget_bytes, up=True)
        return (
            f"spills {excess} into system memory and slows down in {where}: "
            f"{compare_with_budget(found.need.band, budget_bytes)}; {_weights(found)}"
        )
    room = describe_room(found.need.band, kind, budget_bytes)
    return f"{room}; it is tightest in {where}, with {_makeup(found)}"


def _makeup(found: Estimate) -> str:
    """Return what the need is made of, so that the sum can be followed."""
    held = found.bytes_of(LineKind.WEIGHTS)
    context = found.bytes_of(LineKind.CUDA_CONTEXT)
    rest = found.need.band.expected_bytes - held - context
    return (
        f"{format_size(held, up=True)} of weights, {format_size(context, up=True)} of CUDA context "
        f"and {format_size(max(0, rest), up=True)} at work"
    )


def _weights(found: Estimate) -> str:
    """Return what the weights take of a need, and which two components take most of it."""
    rows = [component for component in found.components if component.device == "gpu"]
    if not rows:
        return "most of it is work, not weights"
    total = format_size(sum(component.weights_bytes for component in rows), up=True)
    return f"{total} of it are weights{_largest(rows)}"


def _largest(components: Sequence[Component]) -> str:
    if len(components) < 2:
        return ""
    top = sorted(components, key=lambda c: -c.weights_bytes)[:2]
    named = ", ".join(f"{c.name} {format_size(c.weights_bytes, up=True)}" for c in top)
    return f" ({named})"
