"""Does it fit? Decisions over estimates, cards and budgets; the rules are in `budget.verdict`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from vramplan.budget.verdict import (
    candidate_budgets,
    find_budget,
    grade,
    judged_as,
    offload_risk,
    spills,
)
from vramplan.budget.words import compare_with_budget, describe_room
from vramplan.catalog import CardChoice
from vramplan.engines.door import GGML_RUNTIMES, estimate
from vramplan.model import (
    Band,
    Card,
    Component,
    Estimate,
    Pipeline,
    Settings,
    Verdict,
    VerdictKind,
)
from vramplan.units import format_size

__all__ = [
    "candidate_budgets",
    "find_budget",
    "grade",
    "judge",
    "judge_together",
    "judged_as",
    "offload_risk",
]

_ORDER = list(VerdictKind)

#: diffusers' ways to keep components in system memory, cheapest first
OFFLOAD_MODES = ("none", "model", "sequential")


def judge(
    pipeline: Pipeline,
    settings: Settings,
    choice: CardChoice,
    *,
    folders: Sequence[Path],
    margin_bytes: int = 0,
    other_bytes: int | None = None,
) -> tuple[Verdict, Estimate]:
    """Return the verdict on the worst of a choice's candidates, and the estimate behind it.

    Raises UsageError where the card has no room for a CUDA context, VramplanError where there is no
    estimate.
    """
    found = [
        _judge_card(pipeline, settings, choice, card, budget, folders)
        for card, budget in candidate_budgets(choice, margin_bytes, other_bytes)
    ]
    return max(found, key=lambda pair: _badness(pair[0]))


def judge_together(
    items: Sequence[tuple[Pipeline, Settings]],
    choice: CardChoice,
    *,
    folders: Sequence[Path],
    margin_bytes: int = 0,
    other_bytes: int | None = None,
) -> tuple[Verdict, tuple[Estimate, ...]]:
    """Return the verdict on several pipelines side by side on one card, a process each.

    Each keeps its own CUDA context, so the needs add up.
    """
    found = []
    for card, budget in candidate_budgets(choice, margin_bytes, other_bytes):
        estimates = tuple(
            estimate(pipeline, _plain(settings), card.compute_capability, folders=folders)
            for pipeline, settings in items
        )
        need = sum((e.need.band for e in estimates[1:]), estimates[0].need.band)
        largest = max(estimates, key=lambda e: e.need.band.expected_bytes)
        kind = grade(need, budget, spills=all(spills(settings) for _, settings in items))
        verdict = Verdict(
            pipeline=" + ".join(pipeline.name for pipeline, _ in items),
            card=choice.label,
            card_title=choice.title,
            judged_as=judged_as(card),
            kind=kind,
            need=need,
            budget_bytes=budget,
            offload_risk=offload_risk(need, budget),
            peak_phase=largest.need.phase,
            peak_component=largest.need.component,
            reason=_shared_reason(estimates, need, budget, kind),
        )
        found.append((verdict, estimates))
    return max(found, key=lambda pair: _badness(pair[0]))


def _plain(settings: Settings) -> Settings:
    return {**settings, "offload": "none"} if settings.get("offload") == "auto" else settings


def _judge_card(
    pipeline: Pipeline,
    settings: Settings,
    choice: CardChoice,
    card: Card,
    budget_bytes: int,
    folders: Sequence[Path],
) -> tuple[Verdict, Estimate]:
    if pipeline.runtime in GGML_RUNTIMES:
        from vramplan.engines.ggml.judge import judge_engine

        found, kind, reason = judge_engine(pipeline, settings, card, budget_bytes)
    else:
        found, kind, reason = _judge_torch(pipeline, settings, card, budget_bytes, folders)
    need = found.need.band
    verdict = Verdict(
        pipeline=pipeline.name,
        card=choice.label,
        card_title=choice.title,
        judged_as=judged_as(card),
        kind=kind,
        need=need,
        budget_bytes=budget_bytes,
        offload_risk=offload_risk(need, budget_bytes),
        peak_phase=found.need.phase,
        peak_component=found.need.component,
        reason=reason,
        parts={component.name: component.weights_bytes for component in found.components},
        layers=found.layers,
        buffers=found.buffers,
        context=_context_of(found),
    )
    return verdict, found


def _context_of(found: Estimate) -> int | None:
    """Return the tokens that an engine makes room for; None for other runtimes."""
    tokens = found.settings.get("context")
    return tokens if found.layers is not None and isinstance(tokens, int) else None


def _judge_torch(
    pipeline: Pipeline, settings: Settings, card: Card, budget_bytes: int, folders: Sequence[Path]
) -> tuple[Estimate, VerdictKind, str]:
    is_auto = settings.get("offload") == "auto"
    modes: Sequence[str] = OFFLOAD_MODES if is_auto else (str(settings.get("offload", "none")),)
    for mode in modes:
        tried = {**settings, "offload": mode} if "offload" in settings else dict(settings)
        found = estimate(pipeline, tried, card.compute_capability, folders=folders)
        kind = grade(found.need.band, budget_bytes, spills=spills(settings))
        if not kind.is_failure:
            break
    reason = _torch_reason(found, kind, budget_bytes)
    if not is_auto or mode == "none":
        return found, kind, reason
    if kind.is_failure:
        return found, kind, f"even with {mode} offload it {reason}"
    waits = "its components wait in system memory until they are needed"
    return found, VerdictKind.OFFLOAD, f"runs with {mode} offload, {waits}: {reason}"


def _torch_reason(found: Estimate, kind: VerdictKind, budget_bytes: int) -> str:
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
    held = sum(t.band.expected_bytes for t in found.terms if t.name == "weights")
    context = sum(t.band.expected_bytes for t in found.terms if t.name == "CUDA context")
    rest = found.need.band.expected_bytes - held - context
    return (
        f"{format_size(held, up=True)} of weights, {format_size(context, up=True)} of CUDA context "
        f"and {format_size(max(0, rest), up=True)} at work"
    )


def _badness(verdict: Verdict) -> tuple[int, float, int]:
    """Rank verdicts: by kind, then by risk as far as a person tells risks apart, then by need."""
    risk = round(verdict.offload_risk, 2)
    return _ORDER.index(verdict.kind), risk, verdict.need.expected_bytes


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


def _shared_reason(
    estimates: Sequence[Estimate], need: Band, budget_bytes: int, kind: VerdictKind
) -> str:
    shares = " and ".join(
        f"{e.pipeline} {format_size(e.need.band.expected_bytes, up=True)}" for e in estimates
    )
    compared = (
        compare_with_budget(need, budget_bytes)
        if kind.is_failure
        else f"together it {describe_room(need, kind, budget_bytes)}"
    )
    return f"side by side, a process each ({shares}): {compared}"
