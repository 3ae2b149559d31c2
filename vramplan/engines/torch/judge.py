"""The verdict on a torch pipeline: it fits a card, or fails at a place that is named."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

from vramplan.budget.cuda_context import context_band
from vramplan.budget.verdict import Graded, grade, spills
from vramplan.budget.words import compare_with_budget, describe_room
from vramplan.engines.torch.another_cache import is_told
from vramplan.engines.torch.changed_weights import are_changed, beside_at_limit
from vramplan.engines.torch.estimate import estimate_torch, with_tape
from vramplan.engines.torch.job_tape import tape_at
from vramplan.engines.torch.one_card import one_of
from vramplan.engines.torch.pipeline import TorchPipeline
from vramplan.engines.torch.replayed import (
    MULTIPROCESSORS,
    conditions_at,
    models_at,
    on_card,
    parts_at,
)
from vramplan.engines.torch.result import LeastLimits
from vramplan.engines.torch.run_limits import least_limits, limits_band
from vramplan.engines.torch.tape_files import find_tape
from vramplan.model import (
    Band,
    Card,
    Component,
    Estimate,
    Judgement,
    LayerSplit,
    LineKind,
    Need,
    Origin,
    Settings,
    VerdictKind,
)
from vramplan.quick_dataclass import dataclass, replace
from vramplan.quick_typing import TYPE_CHECKING
from vramplan.setting_values import PLACING_MAPS
from vramplan.units import format_size

if TYPE_CHECKING:  # most runs are placed by nobody, and stop nowhere
    from vramplan.engines.torch.device_map import Placement

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
    if settings.get("device_map") in PLACING_MAPS:
        split = _judge_placed(pipeline, found, kind, card, budget_bytes)
        if split is not None:
            return split
    if kind.is_failure:
        found, kind = _stopped_first(pipeline, found, kind, card, budget_bytes)
    reason = _reason(found, kind, budget_bytes)
    if pipeline.counted is not None and _is_assumed(found):
        from vramplan.engines.torch.beyond_tape import is_carried_on

        rest = "its tape is carried on" if is_carried_on(found) else "its weights are counted"
        reason += f"; {rest}, the rest is assumed"
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
    pipeline: TorchPipeline, found: Estimate, kind: VerdictKind, card: Card, budget_bytes: int
) -> tuple[Estimate, VerdictKind]:
    """Return an estimate whose need names where the run stops first on this card, and the verdict.

    A run that stops nowhere is `tight`: see `_in_a_gap`.
    """
    if is_told(found.settings):  # its tape has another cache
        return found, kind
    from vramplan.engines.torch.first_stop import find_first_stop

    stop = find_first_stop(pipeline, found.settings, card, budget_bytes)
    if stop is None:
        taped = with_tape(pipeline, found.settings, card)
        return found, _in_a_gap(taped, found.settings, kind)
    phase, component = stop
    return replace(found, need=replace(found.need, phase=phase, component=component)), kind


def _in_a_gap(pipeline: TorchPipeline, settings: Settings, kind: VerdictKind) -> VerdictKind:
    """Return the verdict on a run that completes below its least limit.

    Success is not monotone in the limit: a larger one may keep a cache that fragments, and the
    least limit is that from which on every one is enough. Below it a run that completes under the
    very budget is not sure to fail, so it is tight. Where weights are changed, or the cache is
    another, what they take beside the tape's own is in no replay.
    """
    is_changed = are_changed(settings) or is_told(settings)
    is_replayed = pipeline.counted is None and not is_changed
    return VerdictKind.TIGHT if kind is VerdictKind.OOM and is_replayed else kind


# ------------------------------------------------------------------------------ device_map="auto"
@dataclass(frozen=True, slots=True, kw_only=True)
class _Split:
    """What becomes of a run whose loader leaves layers to the CPU, on one card.

    `is_certain` says whether it does so with the context as expected; else it is with the most.
    """

    kind: VerdictKind
    placement: Placement
    is_certain: bool
    at_once_bytes: int

    @property
    def layers(self) -> LayerSplit | None:
        return self.placement.split() if self.is_certain else None

    @property
    def is_split(self) -> bool:
        return self.kind is VerdictKind.OFFLOAD


@dataclass(frozen=True, slots=True, kw_only=True)
class _Run:
    """A run as far as placing it asks."""

    pipeline: TorchPipeline
    settings: Settings
    weights_bytes: int
    need: Band
    kind: VerdictKind  # with all of it on the GPU


def _split(run: _Run, card: Card, budget_bytes: int) -> _Split | None:
    """Return what becomes of a run of which layers are left to the CPU; None where none is.

    As with any need, the context as expected decides, and its high figure makes it tight.
    """
    context = context_band(card)
    likely = _place(run, budget_bytes - context.expected_bytes)
    if likely is None:
        unlikely = _place(run, budget_bytes - context.high_bytes)
        if unlikely is None or run.kind is not VerdictKind.FITS:
            return None
        return _Split(kind=VerdictKind.TIGHT, placement=unlikely, is_certain=False, at_once_bytes=0)
    at_once = run.need.expected_bytes - likely.cpu_bytes + likely.largest_cpu_bytes
    fails = at_once > budget_bytes and not spills(run.settings)
    kind = VerdictKind.OOM if fails else VerdictKind.OFFLOAD
    return _Split(kind=kind, placement=likely, is_certain=True, at_once_bytes=at_once)


def _judge_placed(
    pipeline: TorchPipeline, found: Estimate, kind: VerdictKind, card: Card, budget_bytes: int
) -> Judgement | None:
    """Return the verdict where the loader leaves layers to the CPU; None where it leaves none."""
    need = found.need.band
    run = _Run(
        pipeline=pipeline,
        settings=found.settings,
        weights_bytes=sum(component.weights_bytes for component in found.components),
        need=need,
        kind=kind,
    )
    split = _split(run, card, budget_bytes)
    if split is None:
        return None
    left, layers = _left(split.placement, run.settings), split.layers
    if layers is None:
        room = describe_room(need, VerdictKind.FITS, budget_bytes)
        reason = f"{room}; with the most that the CUDA context may take {left}"
    elif split.kind is VerdictKind.OOM:
        short = compare_with_budget(need, budget_bytes)
        reason = (
            f"fails in {found.need.phase} even with {layers.in_words()}, where it needs "
            f"{format_size(split.at_once_bytes, up=True)}: {left}; all on the GPU {short}"
        )
    else:
        if need.expected_bytes <= budget_bytes:
            whole = f"it {describe_room(need, VerdictKind.FITS, budget_bytes)}"
        else:
            whole = compare_with_budget(need, budget_bytes)
        reason = f"{layers.in_words()}: {left}, many times slower; all on the GPU {whole}"
    return Judgement(
        estimate=found,
        kind=split.kind,
        reason=reason,
        is_split=split.is_split,
        layers=layers,
    )


def _place(run: _Run, free_bytes: int) -> Placement | None:
    """Return where the loader puts what does not all go on the GPU; None where all of it does."""
    from vramplan.engines.torch.device_map import offered_bytes, offered_percent, placed_at

    if run.weights_bytes <= offered_bytes(free_bytes, offered_percent(run.settings)):
        return None  # no layer is then refused: no need to ask the tape
    placed = placed_at(run.pipeline, run.settings, free_bytes)
    return None if placed.is_whole else placed


def _left(placed: Placement, settings: Settings) -> str:
    """Return what the loader leaves to the CPU, and why."""
    from vramplan.engines.torch.device_map import offered_percent

    offered = format_size(placed.offered_bytes, up=False)
    left = format_size(placed.cpu_bytes, up=True)
    percent = offered_percent(settings)
    return (
        f'device_map="{settings["device_map"]}" offers itself {percent} % of what is free, '
        f"{offered}, and leaves {left} to the CPU ({placed.names_on_cpu()})"
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Rest:
    """What a run needs beside the CUDA context on one architecture, and where it fails first."""

    band: Band
    phase: str
    component: str
    weights_bytes: int


class TorchGrader:
    """Grades one pipeline's run on one card after another (`budget.verdict.Grader`).

    A need is what the CUDA context takes on the card, and a rest that goes with its compute
    capability alone. That is found once, from least limits: no peaks, timeline or second run, which
    only an estimate shows.
    """

    def __init__(self, pipeline: TorchPipeline, settings: Settings) -> None:
        self._pipeline = pipeline
        self._settings = settings
        self._spills = spills(settings)
        self._is_auto = settings.get("offload") == "auto"
        self._is_placed = settings.get("device_map") in PLACING_MAPS
        modes = OFFLOAD_MODES if self._is_auto else (str(settings.get("offload", "none")),)
        self._tried = {
            mode: {**settings, "offload": mode} if "offload" in settings else dict(settings)
            for mode in modes
        }
        self._rests: dict[Hashable, _Rest] = {}
        self._limits: dict[Hashable, LeastLimits] = {}
        self._weight_bytes: dict[frozenset[str], int] = {}
        self._stops: dict[Hashable, tuple[str, str] | None] = {}

    def __call__(self, card: Card, budget_bytes: int) -> Graded:
        """Return the figures of `judge_torch`, on one of several cards."""
        used, room_bytes = one_of(card, self._settings, budget_bytes)
        graded = self._grade(used, room_bytes)
        return replace(graded, one_budget_bytes=room_bytes) if card.seats else graded

    def _grade(self, card: Card, budget_bytes: int) -> Graded:
        context = context_band(card)
        for mode, settings in self._tried.items():
            tried = on_card(settings, card)
            rest = self._rest(mode, tried, card)
            band = context + rest.band
            kind = grade(band, budget_bytes, spills=self._spills)
            if not kind.is_failure:
                break
        need = Need(band=band, phase=rest.phase, component=rest.component)
        if self._is_placed:  # which layers stay goes with the room
            run = _Run(
                pipeline=self._pipeline,
                settings=tried,
                weights_bytes=rest.weights_bytes,
                need=band,
                kind=kind,
            )
            split = _split(run, card, budget_bytes)
            if split is not None:
                return Graded(
                    kind=split.kind, need=need, layers=split.layers, is_split=split.is_split
                )
        if kind.is_failure:
            stop = self._stop(mode, tried, card, budget_bytes - context.expected_bytes)
            if stop is not None:
                need = Need(band=band, phase=stop[0], component=stop[1])
            else:
                kind = _in_a_gap(with_tape(self._pipeline, tried, card), tried, kind)
        if kind.is_failure:
            return Graded(kind=kind, need=need)
        if self._is_auto and mode != "none":
            return Graded(kind=VerdictKind.OFFLOAD, need=need, is_split=True)
        return Graded(kind=kind, need=need)

    def _stop(
        self, mode: str, tried: Settings, card: Card, limit_bytes: int
    ) -> tuple[str, str] | None:
        pipeline = with_tape(self._pipeline, tried, card)
        if pipeline.counted is not None or is_told(tried):  # there is nothing to replay
            return None
        capability = card.compute_capability
        key = mode, models_at(pipeline, tried, capability), limit_bytes
        if key not in self._stops:
            from vramplan.engines.torch.first_stop import FirstStop, stop_under

            if self._spills:
                stop = FirstStop(pipeline, tried, capability).under(limit_bytes)
            else:
                stop = stop_under(pipeline, tried, capability, limit_bytes)
            self._stops[key] = stop
        return self._stops[key]

    def _rest(self, mode: str, tried: Settings, card: Card) -> _Rest:
        key = mode, card.compute_capability, tried.get(MULTIPROCESSORS)
        if key not in self._rests:
            is_estimated = (
                self._spills or self._pipeline.counted is not None or is_told(self._settings)
            )
            find = self._estimated if is_estimated else self._limited
            self._rests[key] = find(tried, card)
        return self._rests[key]

    def _estimated(self, tried: Settings, card: Card) -> _Rest:
        """Return the rest of an estimate: where memory spills, a need is a peak."""
        found = estimate_torch(self._pipeline, tried, card)
        return _Rest(
            band=_less(found.need.band, context_band(card)),
            phase=found.need.phase,
            component=found.need.component,
            weights_bytes=sum(component.weights_bytes for component in found.components),
        )

    def _limited(self, tried: Settings, card: Card) -> _Rest:
        capability = card.compute_capability
        # architectures that run alike have the same limits
        key = str(tried.get("offload")), models_at(self._pipeline, tried, capability)
        limits = self._limits.get(key) or least_limits(self._pipeline, tried, capability)
        self._limits[key] = limits
        sizes = (limits.low_bytes, limits.expected_bytes, limits.high_bytes)
        beside = self._beside(tried, capability, limits)
        return _Rest(
            band=limits_band(*sizes, capability) + beside,
            phase=limits.phase,
            component=limits.component,
            weights_bytes=self._weights(tried, capability) if self._is_placed else 0,
        )

    def _beside(self, tried: Settings, compute_capability: str, limits: LeastLimits) -> Band:
        """Return what layers take beside their results where weights are changed."""
        if not are_changed(tried):
            return Band.exactly(0)
        tape = tape_at(self._pipeline, tried, find_tape(self._pipeline))
        conditions = conditions_at(self._pipeline, tried, compute_capability, tape)
        parts = parts_at(tape, conditions)
        expected = limits.expected_bytes
        return beside_at_limit(self._pipeline, tried, limits.component, expected, parts)

    def _weights(self, tried: Settings, compute_capability: str) -> int:
        tape = tape_at(self._pipeline, tried, find_tape(self._pipeline))
        conditions = conditions_at(self._pipeline, tried, compute_capability, tape)
        left_out = conditions.skip_components  # the rest of it are the grader's own settings
        if left_out not in self._weight_bytes:
            parts = parts_at(tape, conditions)
            self._weight_bytes[left_out] = sum(part.weights_bytes for part in parts)
        return self._weight_bytes[left_out]


def _less(whole: Band, part: Band) -> Band:
    """Return what is left of a sum of bands without one that was added to it."""
    return Band(
        low_bytes=whole.low_bytes - part.low_bytes,
        expected_bytes=whole.expected_bytes - part.expected_bytes,
        high_bytes=whole.high_bytes - part.high_bytes,
    )


def _is_assumed(found: Estimate) -> bool:
    """Return whether what a run works with is assumed: it was not recorded."""
    return any(
        line.kind is LineKind.ACTIVATIONS and line.origin is Origin.ASSUMED for line in found.lines
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
        f"and {format_size(max(0, rest), up=True)} to work in"
    )


def _weights(found: Estimate) -> str:
    """Return what the weights take of a need, and which two components take most of it."""
    rows = [component for component in found.components if component.device == "gpu"]
    held = found.bytes_of(LineKind.WEIGHTS)
    if not rows and held * 2 > found.need.band.expected_bytes:  # one component at a time
        return f"{format_size(held, up=True)} of it are weights"
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
