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
from vramplan.settings import SPILLING_PLATFORMS
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
        kind = grade(need, budget, spills=all(_spills(settings) for _, settings in items))
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


# --------------------------------------------------------------------------- the rules
def candidate_budgets(
    choice: CardChoice, margin_bytes: int, other_bytes: int | None
) -> Iterator[tuple[Card, int]]:
    """Yield the cards of a choice that can get different verdicts, each with its budget in bytes.

    Raises UsageError where no CUDA context fits.
    """
    seen: set[tuple[int, int | None, str]] = set()
    for card in choice.candidates:
        key = (usable_bytes(card), card.free_bytes, card.compute_capability)
        if key not in seen:
            seen.add(key)
            yield card, find_budget(card, margin_bytes, other_bytes)


def find_budget(card: Card, margin_bytes: int, other_bytes: int | None) -> int:
    """Return what one process may use: capacity less system reserved, others and margin. Bytes.

    `other_bytes` None takes what NVML says other processes hold, where the card is this machine's.
    Raises UsageError where no CUDA context fits.
    """
    usable = usable_bytes(card)
    if other_bytes is None:
        other_bytes = 0 if card.free_bytes is None else max(0, usable - card.free_bytes)
    budget = usable - other_bytes - margin_bytes
    context = context_band(card.compute_capability).expected_bytes
    if budget < context:
        left = format_size(max(0, budget), up=False)
        raise UsageError(
            f"{card.name}: {left} are left for the process, less than the CUDA context alone takes "
            f"(about {format_size(context)})",
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

    The area above the budget of a two-piece normal distribution whose median is the expected need
    and whose 5 % and 95 % points are low and high.
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


def judged_as(card: Card) -> str:
    """Return what a verdict calls the candidate it was reached on."""
    if card.kind == "assumed":  # a class or a size: its candidates differ in this alone
        return f"compute capability {card.compute_capability}"
    return card.name


def _badness(verdict: Verdict) -> tuple[int, float, int]:
    """Rank verdicts: by kind, then by risk as far as a person tells risks apart, then by need."""
    risk = round(verdict.offload_risk, 2)
    return _ORDER.index(verdict.kind), risk, verdict.need.expected_bytes


def _spills(settings: Settings) -> bool:
    """True where the platform's driver gives system memory instead of failing."""
    return settings.get("platform") in SPILLING_PLATFORMS


def _plain(settings: Settings) -> Settings:
    return {**settings, "offload": "none"} if settings.get("offload") == "auto" else settings


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
        judged_as=judged_as(card),
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
        kind = grade(found.need.band, budget_bytes, spills=_spills(settings))
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
        return f"fails in {where}: {_short(found.need.band, budget_bytes)}; {_weights(found)}"
    if kind is VerdictKind.OFFLOAD:
        excess = format_size(found.need.band.expected_bytes - budget_bytes, up=True)
        return (
            f"spills {excess} into system memory and slows down in {where}: "
            f"{_short(found.need.band, budget_bytes)}; {_weights(found)}"
        )
    room = _room(found.need.band, kind, budget_bytes)
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


def _judge_ggml(
    pipeline: Pipeline, settings: Settings, card: Card, budget_bytes: int
) -> tuple[Estimate, VerdictKind, str]:
    from vramplan.estimate.ggml import estimate_ggml, fit_layers

    context, capability = context_band(), card.compute_capability
    whole = estimate_ggml(pipeline, settings, capability, context, context_source=CONTEXT_SOURCE)
    if settings.get("gpu_layers") == "auto":
        split, placed = fit_layers(
            pipeline, settings, capability, context, budget_bytes, context_source=CONTEXT_SOURCE
        )
        if not split.is_whole or any(c.device == "cpu" for c in placed.components):
            # the need that decides is the whole model's; what is placed is what will run
            shown = replace(placed, need=whole.need)
            return shown, VerdictKind.OFFLOAD, _split_reason(placed, whole, budget_bytes)
    kind = grade(whole.need.band, budget_bytes, spills=_spills(settings))
    return whole, kind, _ggml_reason(whole, kind, budget_bytes)


def _ggml_reason(found: Estimate, kind: VerdictKind, budget_bytes: int) -> str:
    if kind is VerdictKind.OOM:
        compared = _short(found.need.band, budget_bytes)
        return f"fails to {found.need.phase} with {_layers(found)}: {compared}"
    if kind is VerdictKind.OFFLOAD:
        excess = format_size(found.need.band.expected_bytes - budget_bytes, up=True)
        return (
            f"spills {excess} into system memory and slows down with {_layers(found)}: "
            f"{_short(found.need.band, budget_bytes)}"
        )
    return f"{_layers(found)}: {_room(found.need.band, kind, budget_bytes)}"


def _split_reason(placed: Estimate, whole: Estimate, budget_bytes: int) -> str:
    aside = [c.name for c in placed.components if c.device == "cpu" and c.name not in _LANGUAGE]
    and_aside = f" and {' and '.join(aside)}" if aside else ""
    is_whole = placed.layers is not None and placed.layers.is_whole
    rest = " and ".join(aside) if is_whole else f"the rest{and_aside}"
    needed = format_size(whole.need.band.expected_bytes, up=True)
    free = format_size(budget_bytes, up=False)
    return (
        f"{_layers(placed)}, {rest} on the CPU: on the GPU all of it needs {needed} and the margin "
        f"that the engine keeps free, and {free} are available"
    )


_LANGUAGE = frozenset({"language_model"})


# ---------------------------------------------------------------------------- sentences
def _short(need: Band, budget_bytes: int) -> str:
    needed, free = format_size(need.expected_bytes, up=True), format_size(budget_bytes, up=False)
    return f"it needs {needed}, and {free} are available"


def _room(need: Band, kind: VerdictKind, budget_bytes: int) -> str:
    needed, free = format_size(need.expected_bytes, up=True), format_size(budget_bytes, up=False)
    if kind is VerdictKind.TIGHT:
        high = format_size(need.high_bytes, up=True)
        return f"needs {needed} of {free} as expected, but {high} at the high end of the estimate"
    return f"needs {needed} of {free}"


def _layers(found: Estimate) -> str:
    if found.layers is None:
        return found.title
    if found.layers.is_whole:
        return f"all {found.layers.total} layers on the GPU"
    return found.layers.in_words()


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
        _short(need, budget_bytes)
        if kind.is_failure
        else f"together it {_room(need, kind, budget_bytes)}"
    )
    return f"side by side, a process each ({shares}): {compared}"
