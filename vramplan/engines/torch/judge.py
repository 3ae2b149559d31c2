"""The verdict on a torch pipeline: it fits a card, or fails at a place that is named."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from vramplan.budget.cuda_context import context_band
from vramplan.budget.verdict import Graded, grade, spills, without_words
from vramplan.budget.words import compare_with_budget, describe_room
from vramplan.dtypes import ELEMENT_BYTES
from vramplan.engines.torch.device_map import (
    OFFERED_PERCENT,
    Placement,
    modules_of,
    offered_bytes,
    place,
)
from vramplan.engines.torch.estimate import estimate_torch, find_tape, open_tape
from vramplan.engines.torch.first_stop import FirstStop, find_first_stop
from vramplan.engines.torch.one_card import refuse_several
from vramplan.engines.torch.pipeline import TorchPipeline
from vramplan.model import (
    Band,
    Card,
    Component,
    Estimate,
    Judgement,
    LineKind,
    Need,
    Settings,
    VerdictKind,
)
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
    if settings.get("device_map") == "auto":
        split = _judge_placed(pipeline, found, kind, card, budget_bytes)
        if split is not None:
            return split
    if kind.is_failure:
        found = _stopped_first(pipeline, found, card, budget_bytes)
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
        is_split=True,
    )


def _stopped_first(
    pipeline: TorchPipeline, found: Estimate, card: Card, budget_bytes: int
) -> Estimate:
    """Return an estimate whose need names where the run stops first on this card."""
    stop = find_first_stop(pipeline, found.settings, card, budget_bytes)
    if stop is None:
        return found
    phase, component = stop
    return replace(found, need=replace(found.need, phase=phase, component=component))


# ------------------------------------------------------------------------------ device_map="auto"
def _judge_placed(
    pipeline: TorchPipeline, found: Estimate, kind: VerdictKind, card: Card, budget_bytes: int
) -> Judgement | None:
    """Return the verdict where the loader leaves layers to the CPU; None where it leaves none.

    As with any need, the context as expected decides, and its high figure makes it tight.
    """
    context = context_band(card)
    likely = _place(pipeline, found, budget_bytes - context.expected_bytes)
    if likely is None:
        unlikely = _place(pipeline, found, budget_bytes - context.high_bytes)
        if unlikely is None or kind is not VerdictKind.FITS:
            return None
        room = describe_room(found.need.band, VerdictKind.FITS, budget_bytes)
        reason = f"{room}; with the most that the CUDA context may take {_left(unlikely)}"
        return Judgement(estimate=found, kind=VerdictKind.TIGHT, reason=reason)
    need = found.need.band
    at_once = need.expected_bytes - likely.cpu_bytes + likely.largest_cpu_bytes
    layers = likely.split()
    if at_once > budget_bytes and not spills(found.settings):
        short = compare_with_budget(need, budget_bytes)
        reason = (
            f"fails in {found.need.phase} even with {layers.in_words()}, where it needs "
            f"{format_size(at_once, up=True)}: {_left(likely)}; all on the GPU {short}"
        )
        return Judgement(estimate=found, kind=VerdictKind.OOM, reason=reason, layers=layers)
    if need.expected_bytes <= budget_bytes:
        whole = f"it {describe_room(need, VerdictKind.FITS, budget_bytes)}"
    else:
        whole = compare_with_budget(need, budget_bytes)
    reason = f"{layers.in_words()}: {_left(likely)}, many times slower; all on the GPU {whole}"
    return Judgement(
        estimate=found,
        kind=VerdictKind.OFFLOAD,
        reason=reason,
        is_split=True,
        layers=layers,
    )


def _place(pipeline: TorchPipeline, found: Estimate, free_bytes: int) -> Placement | None:
    """Return where the loader puts what does not all go on the GPU; None where all of it does."""
    weights = sum(component.weights_bytes for component in found.components)
    if weights <= offered_bytes(free_bytes):  # no layer is then refused: no need to ask the tape
        return None
    dtype = str(found.settings.get("dtype", "fp32"))
    modules = modules_of(pipeline, open_tape(find_tape(pipeline)), ELEMENT_BYTES[dtype])
    placed = place(modules, free_bytes)
    return None if placed.is_whole else placed


def _left(placed: Placement) -> str:
    """Return what the loader leaves to the CPU, and why."""
    offered = format_size(placed.offered_bytes, up=False)
    left = format_size(placed.cpu_bytes, up=True)
    return (
        f'device_map="auto" offers itself {OFFERED_PERCENT} % of what is free, {offered}, and '
        f"leaves {left} to the CPU ({placed.names_on_cpu()})"
    )


class TorchGrader:
    """Grades one pipeline's run on one card after another (`budget.verdict.Grader`).

    A need is what the CUDA context takes on the card, and a rest that goes with its compute
    capability alone: that is estimated once, and so is a run for which the places where it stops
    are looked up.
    """

    def __init__(self, pipeline: TorchPipeline, settings: Settings) -> None:
        self._pipeline = pipeline
        self._settings = settings
        self._spills = spills(settings)
        self._is_auto = settings.get("offload") == "auto"
        modes = OFFLOAD_MODES if self._is_auto else (str(settings.get("offload", "none")),)
        self._tried = {
            mode: {**settings, "offload": mode} if "offload" in settings else dict(settings)
            for mode in modes
        }
        self._rests: dict[tuple[str, str], tuple[Estimate, Band]] = {}
        self._stops: dict[tuple[str, str], FirstStop] = {}

    def __call__(self, card: Card, budget_bytes: int) -> Graded:
        """Return the figures of `judge_torch`."""
        refuse_several(card)
        for mode, tried in self._tried.items():
            found, need = self._need(mode, tried, card)
            kind = grade(need.band, budget_bytes, spills=self._spills)
            if not kind.is_failure:
                break
        if self._settings.get("device_map") == "auto":  # which layers stay goes with the room
            here = replace(found, need=need)
            split = _judge_placed(self._pipeline, here, kind, card, budget_bytes)
            if split is not None:
                return without_words(split)
        if kind.is_failure:
            stop = self._stop(mode, tried, card, budget_bytes)
            if stop is not None:
                need = replace(need, phase=stop[0], component=stop[1])
            return Graded(kind=kind, need=need)
        if self._is_auto and mode != "none":
            return Graded(kind=VerdictKind.OFFLOAD, need=need, is_split=True)
        return Graded(kind=kind, need=need)

    def _stop(
        self, mode: str, tried: Settings, card: Card, budget_bytes: int
    ) -> tuple[str, str] | None:
        key = mode, card.compute_capability
        if key not in self._stops:
            self._stops[key] = FirstStop(self._pipeline, tried, card.compute_capability)
        return self._stops[key].under(budget_bytes - context_band(card).expected_bytes)

    def _need(self, mode: str, tried: Settings, card: Card) -> tuple[Estimate, Need]:
        """Return an estimate of the card's capability, and the need on the card itself."""
        context = context_band(card)
        known = self._rests.get((mode, card.compute_capability))
        if known is None:
            found = estimate_torch(self._pipeline, tried, card)
            known = found, _less(found.need.band, context)
            self._rests[mode, card.compute_capability] = known
        found, rest = known
        return found, replace(found.need, band=context + rest)


def _less(whole: Band, part: Band) -> Band:
    """Return what is left of a sum of bands without one that was added to it."""
    return Band(
        low_bytes=whole.low_bytes - part.low_bytes,
        expected_bytes=whole.expected_bytes - part.expected_bytes,
        high_bytes=whole.high_bytes - part.high_bytes,
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
