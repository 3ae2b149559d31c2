"""What an entry's tapes say of settings that none of them has code for.

A tape of one image, one length or one video has no expression in them, and one without plain
attention no code for architectures that have no other. What is needed there is bounded all the
same, by what must be so whatever the sizes:

- at more images, pixels or frames each tensor is no smaller, and no larger than their ratio says,
  or its square where attention keeps its scores. So the nearest recorded settings that are no
  larger bound it from below, and with the ratio from above; the nearest that are no smaller from
  above, and with the ratio from below;
- attention that keeps its scores has its result as well, in a copy where a fused kernel gives a
  view, and the scores are larger than what a fused kernel keeps beside it. So a run with a fused
  kernel bounds it from below.

That the code does the same there is taken for granted: all of it is assumed, and says so.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from fractions import Fraction
from pathlib import Path

from vramplan.budget.cuda_context import context_band
from vramplan.codec import Json
from vramplan.engines.torch.attention_kernel import FUSED, PLAIN
from vramplan.engines.torch.beyond_tape import last_inside, shown_setting
from vramplan.engines.torch.cublas_workspace import cublas_band
from vramplan.engines.torch.facts import numbers_at
from vramplan.engines.torch.job_tape import tape_at
from vramplan.engines.torch.pipeline import TorchPipeline
from vramplan.engines.torch.replayed import (
    bare,
    conditions_at,
    facts_of,
    lacks_code,
    on_card,
    result_key,
)
from vramplan.engines.torch.tape_files import look_for_tape, open_tape, tape_proof
from vramplan.errors import TapeError
from vramplan.known_results import KnownResults
from vramplan.model import (
    Band,
    Card,
    Estimate,
    Line,
    LineKind,
    Origin,
    PhaseUse,
    Settings,
    SettingValue,
)
from vramplan.quick_dataclass import dataclass, replace
from vramplan.quick_typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vramplan.engines.torch.tape.contents import Tape

_WHY = "what differs from there is by the ratio of their sizes, and not proved"


def _read(raw: Json) -> int | None:
    return raw if type(raw) is int and raw >= 0 else None


#: what is live at a run's peak without scratch, with another kernel of attention
_LEAST = KnownResults[int]("least by another kernel", lambda found: found, _read)


# ------------------------------------------------------------------------------ nearest settings
def nearest(
    tape: Tape, defaults: Settings, settings: Settings, *, larger: bool = False
) -> Settings | None:
    """Return the nearest settings at which a tape holds, none of them larger, or none smaller.

    None where there are none on the way to the entry's defaults.
    """
    ranges, steps = _ranges(tape), _steps(tape)

    def side(value: int, name: str) -> int:
        low, high = ranges.get(name, (value, value))
        step, rest = steps.get(name, (1, 0))
        found = min(max(value, low), high)
        return found + (rest - found) % step if larger else found - (found - rest) % step

    goal = {
        key: _each(value, ("width", "height") if key == "image" else (key,), side)
        for key, value in settings.items()
    }
    if not all(_is_in_order(settings[key], goal[key], larger=larger) for key in goal):
        return None
    if tape.outside(numbers_at(goal)) is None:
        return goal
    start = {key: _toward(goal[key], defaults.get(key), larger=larger) for key in goal}
    return last_inside(tape, start, goal)


def _ranges(tape: Tape) -> dict[str, tuple[int, int]]:
    """Return between what each of the settings has to be."""
    return {tape.dims[text]: found for text, found in tape.domain.items() if text in tape.dims}


def _steps(tape: Tape) -> dict[str, tuple[int, int]]:
    """Return of what settings are multiples, and what is left over."""
    found: dict[str, tuple[int, int]] = {}
    for text, (rest, same) in tape.domain.items():
        name, _, step = text.partition("%")
        if step.isdigit() and name in tape.dims and rest == same:
            found[tape.dims[name]] = int(step), rest
    return found


def _each(
    value: SettingValue, names: tuple[str, ...], change: Callable[[int, str], int]
) -> SettingValue:
    if isinstance(value, tuple):
        width, height = (change(one, name) for one, name in zip(value, names, strict=True))
        return width, height
    return change(value, names[0]) if type(value) is int else value


def _is_in_order(asked: SettingValue, found: SettingValue, *, larger: bool) -> bool:
    one, other = (asked, found) if larger else (found, asked)
    if isinstance(one, tuple) and isinstance(other, tuple):
        return all(a <= b for a, b in zip(one, other, strict=True))
    if type(one) is int and type(other) is int:
        return one <= other
    return one == other


def _toward(value: SettingValue, default: SettingValue | None, *, larger: bool) -> SettingValue:
    pick = max if larger else min
    if isinstance(value, tuple) and isinstance(default, tuple):
        return pick(value[0], default[0]), pick(value[1], default[1])
    if type(value) is int and type(default) is int:
        return pick(value, default)
    return value


def _ratio(settings: Settings, there: Settings, power: int = 1) -> Fraction:
    """Return how many times as large a tensor may be, that goes with all that differs.

    Or with a power of it: each of a batch has scores of its own.
    """
    asked, found = numbers_at(settings), numbers_at(there)
    ratio = Fraction(1)
    for name in asked.keys() & found.keys():
        if asked[name] != found[name]:
            one = Fraction(asked[name], max(1, found[name]))
            ratio *= one if name == "batch" else one**power
    return ratio


# ------------------------------------------------------------------------------ tapes
def _tapes(pipeline: TorchPipeline, settings: Settings) -> Iterator[tuple[TorchPipeline, Path]]:
    """Yield an entry's pipeline with each of its tapes that may be of the dtype."""
    name = pipeline.tape_within
    if name is None:
        return
    for one in (f"{name}.{settings.get('dtype')}", name):
        taped = replace(pipeline, tape=one, tape_within=None, counted=None, saved=None)
        path = look_for_tape(taped)
        if path is not None:
            yield taped, path


# ------------------------------------------------------------------------------ other sizes
def estimate_near(
    pipeline: TorchPipeline,
    settings: Settings,
    card: Card,
    estimate: Callable[[TorchPipeline, Settings], Estimate],
) -> Estimate | None:
    """Return the budget by the nearest settings of an entry's tape; None where there are none.

    `estimate` is told a pipeline with a tape, and settings at which that holds.
    """
    for taped, path in _tapes(pipeline, settings):
        tape = open_tape(path)
        for larger in (False, True):
            there = nearest(tape, pipeline.defaults, settings, larger=larger)
            if there is None or there == settings:
                continue
            if lacks_code(taped, there, card.compute_capability, tape):
                continue
            try:
                found = estimate(taped, there)
            except TapeError:
                continue
            kernel = facts_of(taped, there, card.compute_capability, tape)["kernel"]
            source = f"tape {taped.tape}"
            return _moved_there(found, settings, there, source, is_square=kernel == PLAIN)
    return None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Move:
    """By how many bytes a band's ends are further up than where a tape holds, or down."""

    low_bytes: int
    expected_bytes: int
    high_bytes: int

    def of(self, band: Band) -> Band:
        low = max(0, band.low_bytes + self.low_bytes)
        expected = max(low, band.expected_bytes + self.expected_bytes)
        high = max(expected, band.high_bytes + self.high_bytes)
        return Band(low_bytes=low, expected_bytes=expected, high_bytes=high)


def _moved_there(
    found: Estimate, settings: Settings, there: Settings, source: str, *, is_square: bool
) -> Estimate:
    """Return a budget of the nearest settings as one of those that are asked for."""
    held = sum(line.band.expected_bytes for line in found.lines if line.kind in _HELD)
    held += cublas_band(found.compute_capability)[0].expected_bytes
    work = tuple(
        max(0, end - held)
        for end in (
            found.need.band.low_bytes,
            found.need.band.expected_bytes,
            found.need.band.high_bytes,
        )
    )
    ratio, most = _ratio(settings, there), _ratio(settings, there, 2 if is_square else 1)
    if ratio >= 1:
        growth = int((ratio - 1) * work[1])
        move = _Move(
            low_bytes=0,
            expected_bytes=growth,
            # as beyond a tape's sizes: twice as much
            high_bytes=max(2 * growth, int((most - 1) * work[2])),
        )
    else:
        move = _Move(
            low_bytes=-int((1 - most) * work[0]),
            expected_bytes=-int((1 - ratio) * work[1]),
            high_bytes=0,
        )
    shown = ", ".join(
        f"{key} {shown_setting(there[key])}" for key in there if there[key] != settings[key]
    )
    moved = _moved(found, move, f"{source}, which holds at {shown}: {_WHY}", origin=Origin.ASSUMED)
    peak = moved.peak
    return replace(
        moved,
        settings=settings,
        lines=tuple(map(_as_of_another, moved.lines)),
        phases=(
            PhaseUse(
                name=peak.phase,
                component=peak.component,
                allocated_peak_bytes=peak.allocated_bytes,
                reserved_peak_bytes=peak.reserved_bytes,
                device_used_bytes=peak.device.expected_bytes,
            ),
        ),
        timeline=(),
        notes=(f"by its tape at {shown}: {_WHY}",),
    )


def _as_of_another(line: Line) -> Line:
    """Return a line of the nearest settings as one of others: a layer's scratch is not witnessed.

    What is of no component, as cuBLAS's, is the same at all settings.
    """
    if line.origin is not Origin.WITNESSED or line.component is None:
        return line
    source = f"assumed to be as at the nearest settings: {line.source}"
    return replace(line, origin=Origin.ASSUMED, source=source)


def _moved(found: Estimate, move: _Move, source: str, *, origin: Origin | None = None) -> Estimate:
    """Return a budget with its activations moved, and with them all that they are part of.

    `source` says of the activations where they come from now.
    """
    at = next(n for n, line in enumerate(found.lines) if line.kind is LineKind.ACTIVATIONS)
    line = found.lines[at]
    band = move.of(line.band)
    lines = (
        *found.lines[:at],
        replace(line, band=band, origin=origin or line.origin, source=source),
        *found.lines[at + 1 :],
    )
    device = sum((one.band for one in lines[1:]), lines[0].band)
    more = band.expected_bytes - line.band.expected_bytes
    return replace(
        found,
        lines=lines,
        phases=tuple(
            replace(
                one,
                allocated_peak_bytes=one.allocated_peak_bytes + more,
                reserved_peak_bytes=one.reserved_peak_bytes + more,
                device_used_bytes=device.expected_bytes,
            )
            for one in found.phases
        ),
        peak=replace(
            found.peak,
            allocated_bytes=found.peak.allocated_bytes + more,
            reserved_bytes=found.peak.reserved_bytes + more,
            device=device,
        ),
        need=replace(found.need, band=_moved_need(found, move)),
    )


def _moved_need(found: Estimate, move: _Move) -> Band:
    """Return the need with all but the CUDA context moved: a grade takes that off again."""
    context = next(one.band for one in found.lines if one.kind is LineKind.CUDA_CONTEXT)
    need = found.need.band
    rest = Band(
        low_bytes=need.low_bytes - context.low_bytes,
        expected_bytes=need.expected_bytes - context.expected_bytes,
        high_bytes=need.high_bytes - context.high_bytes,
    )
    return context + move.of(rest)


#: what goes with no size that is asked for, beside cuBLAS's workspace
_HELD = frozenset({LineKind.WEIGHTS, LineKind.CUDA_CONTEXT})


# ------------------------------------------------------------------------------ other kernels
def raised(found: Estimate, pipeline: TorchPipeline, settings: Settings, card: Card) -> Estimate:
    """Return a counted budget whose need is no less than that of a run with a fused kernel.

    It is returned as it is where the entry has no tape of such a run.
    """
    least = _least_with_fused(pipeline, settings, card)
    if least is None:
        return found
    least_bytes, kernel, there, name = least
    least_bytes += context_band(card).low_bytes
    lacking = least_bytes - found.need.band.low_bytes
    if lacking <= 0:
        return found
    shown = "".join(
        f", {key} {shown_setting(there[key])}" for key in there if there[key] != settings[key]
    )
    told = next(line.source for line in found.lines if line.kind is LineKind.ACTIVATIONS)
    return _moved(
        found,
        _Move(low_bytes=lacking, expected_bytes=0, high_bytes=0),
        f"{told}; no less than by tape {name} with {kernel} attention{shown}",
    )


def _least_with_fused(
    pipeline: TorchPipeline, settings: Settings, card: Card
) -> tuple[int, str, Settings, str] | None:
    """Return what is live at the peak with a fused kernel, which, at what settings, by which tape.

    None where the architecture has a fused kernel itself, or no tape has one.
    """
    capability = card.compute_capability
    for taped, path in _tapes(pipeline, settings):
        tape = open_tape(path)
        there = nearest(tape, pipeline.defaults, settings)
        if there is None:
            continue
        if facts_of(taped, there, capability, tape).get("kernel") != PLAIN:
            continue
        for kernel in FUSED:
            if lacks_code(taped, there, capability, tape, kernel=kernel):
                continue
            found = _live(taped, on_card(there, card), capability, kernel, path)
            return found, kernel, there, str(taped.tape)
    return None


def _live(
    taped: TorchPipeline, settings: Settings, capability: str, kernel: str, path: Path
) -> int:
    """Return the bytes that are live at the peak of a run with a kernel, without scratch."""
    key = f"{result_key(path, taped, settings, capability)} by {kernel}"

    def find() -> int:
        from vramplan.engines.torch.rehearsals import rehearse_once

        tape = tape_at(taped, settings, path)
        conditions = conditions_at(taped, settings, capability, tape)
        facts: Mapping[str, str] = {**conditions.facts, "kernel": kernel}
        run = rehearse_once(
            tape,
            bare(replace(conditions, facts=facts)),
            expandable_segments=settings.get("expandable_segments") == "on",
        )
        return run.trace.allocated_peak_bytes

    return _LEAST.get(key, find, proof=lambda: tape_proof(path))
