"""Does it fit? Pure decisions over estimates, cards and budgets.

fits      high <= budget                     tight    expected <= budget < high
offload   expected > budget, it will spill   oom      expected > budget, it will fail
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from vramplan.catalog import CardChoice, usable_bytes
from vramplan.errors import UsageError
from vramplan.estimate.context import SOURCE as CONTEXT_SOURCE
from vramplan.estimate.context import context_band
from vramplan.estimate.estimator import GGML_RUNTIMES, estimate
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

#: the 95 % point of the standard normal distribution
_Z95 = 1.6448536269514722

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
        _judge_card(
            pipeline,
            settings,
            choice,
            card,
            find_budget(card, margin_bytes, other_bytes),
            folders,
        )
        for card in _distinct(choice.candidates, pipeline)
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
    for card in choice.candidates:
        budget = find_budget(card, margin_bytes, other_bytes)
        estimates = tuple(
            estimate(pipeline, _plain(settings), card.compute_capability, folders=folders)
            for pipeline, settings in items
        )
        need = sum((e.need.band for e in estimates[1:]), estimates[0].need.band)
        largest = max(estimates, key=lambda e: e.need.band.expected_bytes)
        spills = all(_spills(pipeline, settings) for pipeline, settings in items)
        kind = grade(need, budget, spills=spills)
        shares = " and ".join(
            f"{e.pipeline} {format_size(e.need.band.expected_bytes, up=True)}" for e in estimates
        )
        verdict = Verdict(
            pipeline=" + ".join(pipeline.name for pipeline, _ in items),
            card=choice.label,
            card_title=choice.title,
            judged_as=_judged_as(card),
            kind=kind,
            need=need,
            budget_bytes=budget,
            offload_risk=offload_risk(need, budget),
            peak_phase=largest.need.phase,
            peak_component=largest.need.component,
            reason=f"side by side, a process each: {shares}; {_compared(need, budget)}",
        )
        found.append((verdict, estimates))
    return max(found, key=lambda pair: _badness(pair[0]))


def find_budget(card: Card, margin_bytes: int, other_bytes: int | None) -> int:
    """Return what one process may use: capacity less system reserved, others and margin. Bytes.

    `other_bytes` None takes what NVML says other processes hold, where the card is this machine's.
    Raises UsageError where no CUDA context fits.
    """
    usable = usable_bytes(card)
    if other_bytes is None:
        other_bytes = 0 if card.free_bytes is None else max(0, usable - card.free_bytes)
    budget = usable - other_bytes - margin_bytes
    context = context_band().expected_bytes
    if budget < context:
        raise UsageError(
            f"{card.name}: {format_size(max(0, budget), up=False)} are left for the process, less than "
            f"the CUDA context alone takes (about {format_size(context)})",
            hint="choose a larger card, or a smaller --margin or --other",
        )
    return budget


def grade(need: Band, budget_bytes: int, *, spills: bool) -> VerdictKind:
    """Return the verdict for a need and a budget; `spills` where the runtime does not fail."""
    if need.high_bytes <= budget_bytes:
        return VerdictKind.FITS
    if need.expected_bytes <= budget_bytes:
        return VerdictKind.TIGHT
    return VerdictKind.OFFLOAD if spills else VerdictKind.OOM


def offload_risk(need: Band, budget_bytes: int) -> float:
    """Return the probability that the need exceeds the budget, 0 to 1.

    The area above the budget of a two-piece normal distribution whose median is the expected need and
    whose 5 % and 95 % points are low and high.
    """
    distance = budget_bytes - need.expected_bytes
    side = (
        need.high_bytes - need.expected_bytes
        if distance >= 0
        else need.expected_bytes - need.low_bytes
    )
    if side == 0:
        return 0.0 if distance >= 0 else 1.0
    return 0.5 * math.erfc(distance * _Z95 / side / math.sqrt(2))


# ------------------------------------------------------------------------- one card
def _judge_card(
    pipeline: Pipeline,
    settings: Settings,
    choice: CardChoice,
    card: Card,
    budget_bytes: int,
    folders: Sequence[Path],
) -> tuple[Verdict, Estimate]:
    if pipeline.runtime in GGML_RUNTIMES:
        found, kind, reason = _judge_ggml(pipeline, settings, card, budget_bytes)
    else:
        found, kind, reason = _judge_torch(pipeline, settings, card, budget_bytes, folders)
    need = found.need.band
    verdict = Verdict(
        pipeline=pipeline.name,
        card=choice.label,
        card_title=choice.title,
        judged_as=_judged_as(card),
        kind=kind,
        need=need,
        budget_bytes=budget_bytes,
        offload_risk=offload_risk(need, budget_bytes),
        peak_phase=found.need.phase,
        peak_component=found.need.component,
        reason=reason,
        parts={component.name: component.weights_bytes for component in found.components},
    )
    return verdict, found


def _judge_torch(
    pipeline: Pipeline, settings: Settings, card: Card, budget_bytes: int, folders: Sequence[Path]
) -> tuple[Estimate, VerdictKind, str]:
    is_auto = settings.get("offload") == "auto"
    modes: Sequence[str] = OFFLOAD_MODES if is_auto else (str(settings.get("offload", "none")),)
    for mode in modes:
        tried = {**settings, "offload": mode} if "offload" in settings else dict(settings)
        found = estimate(pipeline, tried, card.compute_capability, folders=folders)
        kind = grade(found.need.band, budget_bytes, spills=_spills(pipeline, settings))
        if not kind.is_failure:
            break
    reason = _torch_reason(found, kind, budget_bytes)
    if is_auto and mode != "none" and not kind.is_failure:
        kind = VerdictKind.OFFLOAD
        reason = f"runs with {mode} offload, its components in system memory until they are needed; {reason}"
    return found, kind, reason


def _torch_reason(found: Estimate, kind: VerdictKind, budget_bytes: int) -> str:
    weights = sum(c.weights_bytes for c in found.components if c.device == "gpu")
    largest = _largest(found.components)
    compared = _compared(found.need.band, budget_bytes)
    held = f"weights {format_size(weights, up=True)}" + (f" ({largest})" if largest else "")
    where = f"{found.need.phase} at {found.need.component}"
    if kind is VerdictKind.OOM:
        return f"out of memory in {where}: {compared}; {held}"
    if kind is VerdictKind.OFFLOAD:
        return f"spills to system memory in {where}: {compared}; {held}"
    if kind is VerdictKind.TIGHT:
        return f"fits as expected, not at the high end of the band: {compared}; tightest in {where}"
    return f"{compared}; tightest in {where}; {held}"


def _judge_ggml(
    pipeline: Pipeline, settings: Settings, card: Card, budget_bytes: int
) -> tuple[Estimate, VerdictKind, str]:
    from vramplan.estimate.ggml import estimate_ggml, fit_layers

    context, capability = context_band(), card.compute_capability
    whole = estimate_ggml(pipeline, settings, capability, context, context_source=CONTEXT_SOURCE)
    need = whole.need.band
    if settings.get("gpu_layers") != "auto":
        kind = grade(need, budget_bytes, spills=_spills(pipeline, settings))
        return whole, kind, f"{_layers(whole)}; {_compared(need, budget_bytes)}"
    split, placed = fit_layers(
        pipeline, settings, capability, context, budget_bytes, context_source=CONTEXT_SOURCE
    )
    off_gpu = [c.name for c in placed.components if c.device == "cpu"]
    if split.on_gpu == split.total and not off_gpu:
        kind = grade(need, budget_bytes, spills=True)
        return whole, kind, f"{_layers(whole)}; {_compared(need, budget_bytes)}"
    aside = f", {' and '.join(off_gpu)} on the CPU" if off_gpu else ""
    reason = f"{_layers(placed)}{aside}: all of it needs {format_size(need.expected_bytes, up=True)} and the margin the engine keeps free, of {format_size(budget_bytes, up=False)}"
    # the need that decides is the whole model's; what is placed is what will run
    return replace(placed, need=whole.need), VerdictKind.OFFLOAD, reason


def _layers(found: Estimate) -> str:
    if found.layers is None:
        return found.title
    return f"{found.layers.on_gpu} of {found.layers.total} layers on the GPU"


def _compared(need: Band, budget_bytes: int) -> str:
    needed = format_size(need.expected_bytes, up=True)
    return f"needs {needed} of {format_size(budget_bytes, up=False)}"


def _largest(components: Sequence[Component]) -> str:
    top = sorted(components, key=lambda c: -c.weights_bytes)[:2]
    return ", ".join(
        f"{c.name} {format_size(c.weights_bytes, up=True)}" for c in top if len(components) > 1
    )


def _spills(pipeline: Pipeline, settings: Settings) -> bool:
    """True where the platform's driver gives system memory instead of failing."""
    return settings.get("platform") in ("windows", "wsl")


def _plain(settings: Settings) -> Settings:
    return {**settings, "offload": "none"} if settings.get("offload") == "auto" else settings


def _distinct(cards: Sequence[Card], pipeline: Pipeline) -> Iterator[Card]:
    """Yield the cards that can give different verdicts: one for each capacity and architecture."""
    seen: set[tuple[int, int | None, str]] = set()
    for card in cards:
        key = (usable_bytes(card), card.free_bytes, card.compute_capability)
        if key not in seen:
            seen.add(key)
            yield card


def _judged_as(card: Card) -> str:
    return f"{card.name}, compute capability {card.compute_capability}"


def _badness(verdict: Verdict) -> tuple[int, float, int]:
    return _ORDER.index(verdict.kind), verdict.offload_risk, verdict.need.expected_bytes
