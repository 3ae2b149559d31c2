"""The budget of a pipeline that runs in torch, line by line."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from vramplan.budget.cuda_context import context_band, context_line
from vramplan.engines.torch.activations import activations_line
from vramplan.engines.torch.allocator_slack import slack_line, with_chance
from vramplan.engines.torch.convolution_workspace import convolution_lines
from vramplan.engines.torch.cublas_workspace import cublas_band, cublas_line
from vramplan.engines.torch.gradients import gradients_lines
from vramplan.engines.torch.optimizer_state import optimizer_state_lines
from vramplan.engines.torch.peak import RunAtPeak
from vramplan.engines.torch.pipeline import TorchPipeline
from vramplan.engines.torch.replayed import (
    conditions_at,
    replay_run,
    result_key,
    tape_key,
)
from vramplan.engines.torch.result import Replayed
from vramplan.engines.torch.shipped_results import remembered, was_replayed
from vramplan.engines.torch.weights import components, weights_lines
from vramplan.errors import TapeError
from vramplan.model import (
    Band,
    Card,
    Estimate,
    Line,
    Need,
    Peak,
    PhaseUse,
    Settings,
    TimelinePoint,
)
from vramplan.settings import SPILLING_PLATFORMS
from vramplan.units import format_size

if TYPE_CHECKING:
    from vramplan.engines.torch.tape.contents import Tape


def estimate_torch(pipeline: TorchPipeline, settings: Settings, card: Card) -> Estimate:
    """Return the budget of a torch pipeline on a card, from its tape, or counted without one.

    Raises TapeError where there is no tape, or none that holds for these settings.
    """
    if pipeline.counted is not None:
        return _estimate_saved(pipeline, settings, card)
    path = find_tape(pipeline)
    result = replayed(pipeline, settings, card.compute_capability, path)
    run = RunAtPeak(pipeline=pipeline, settings=settings, card=card, result=result)
    return _budget(run)


def _estimate_saved(pipeline: TorchPipeline, settings: Settings, card: Card) -> Estimate:
    """Return the budget of a saved model without a tape: recorded here, or else counted."""
    from vramplan.engines.torch.recorded_model import record_saved

    attempt = record_saved(pipeline, settings, card.compute_capability)
    if attempt.pipeline is None:
        from vramplan.engines.torch.counted import estimate_counted

        found = estimate_counted(pipeline, settings, card)
        return replace(found, notes=(*found.notes, *filter(None, (attempt.reason,))))
    found = estimate_torch(attempt.pipeline, settings, card)
    made_with = open_tape(find_tape(attempt.pipeline)).recorded_with
    versions = ", ".join(f"{name} {version}" for name, version in made_with.items())
    note = f"recorded here by its class's own code, without data, at these settings ({versions})"
    said = filter(None, (note, attempt.reason))
    return replace(found, notes=(*said, *found.notes))


def with_tape(pipeline: TorchPipeline, settings: Settings, card: Card) -> TorchPipeline:
    """Return a pipeline as it is, or a saved model's with the tape of a recording if there is."""
    if pipeline.counted is None:
        return pipeline
    from vramplan.engines.torch.recorded_model import record_saved

    return record_saved(pipeline, settings, card.compute_capability).pipeline or pipeline


def find_tape(pipeline: TorchPipeline) -> Path:
    """Return the path of a pipeline's tape; raises TapeError where none of its folders has it."""
    if pipeline.counted is not None:
        hint = "check, estimate and sweep answer with what is counted"
        raise TapeError(f"{pipeline.name}: its architecture has no tape", hint=hint)
    name, folders = pipeline.tape or pipeline.name, pipeline.folders
    beside = Path(pipeline.path).parent / f"{name}.json"
    for path in (*(folder / "tapes" / f"{name}.json" for folder in folders), beside):
        if path.is_file():
            return path
    raise TapeError(
        f"{pipeline.name}: no tape {name}.json in {', '.join(str(f / 'tapes') for f in folders)}",
        hint=f"record it with: vramplan record {pipeline.name}",
    )


def open_tape(path: Path) -> Tape:
    """Return the tape in `path`, read once for as long as the file stays as it is."""
    state = path.stat()
    return _open_tape(path, state.st_size, state.st_mtime_ns)


@lru_cache(maxsize=4)
def _open_tape(path: Path, _size: int, _changed: int) -> Tape:
    # a shipped result needs no tape
    from vramplan.engines.torch.tape.checked import read_checked_tape
    from vramplan.engines.torch.tape.format import read_tape

    return read_checked_tape(path) if was_replayed(path.parent, tape_key(path)) else read_tape(path)


def replayed(
    pipeline: TorchPipeline, settings: Settings, compute_capability: str, path: Path
) -> Replayed:
    """Return the replay's result at these settings, shipped or made now."""
    key = result_key(path, pipeline, settings, compute_capability)

    def replay() -> Replayed:
        tape = open_tape(path)
        conditions = conditions_at(pipeline, settings, compute_capability, tape)
        expandable = settings.get("expandable_segments") == "on"
        return replay_run(tape, conditions, compute_capability, expandable_segments=expandable)

    return remembered(path.parent, key, replay)


def _budget(run: RunAtPeak) -> Estimate:
    """Return a replayed run as a budget."""
    lines = tuple(_lines(run))
    device = sum((line.band for line in lines[1:]), lines[0].band)
    expected = run.result.expected
    return Estimate(
        pipeline=run.pipeline.name,
        title=run.pipeline.title,
        runtime=run.pipeline.runtime,
        settings=run.settings,
        compute_capability=run.compute_capability,
        components=tuple(components(run)),
        phases=tuple(_phases(run)),
        lines=lines,
        peak=Peak(
            phase=run.mark.phase,
            component=run.mark.component,
            allocated_bytes=expected.allocated_peak_bytes,
            reserved_bytes=expected.reserved_peak_bytes,
            device=device,
        ),
        need=_need(run, device),
        timeline=tuple(_timeline(run)),
        notes=tuple(_notes(run)),
    )


def _lines(run: RunAtPeak) -> Iterator[Line]:
    """Yield the lines of the peak; low, expected and high each add up to the device's."""
    yield from weights_lines(run)
    kept = [*gradients_lines(run), *optimizer_state_lines(run)]
    yield from kept
    yield activations_line(run, sum(line.band.expected_bytes for line in kept))
    yield from convolution_lines(run)
    yield cublas_line(run.compute_capability)
    yield slack_line(run)
    yield context_line(run.card)


def _phases(run: RunAtPeak) -> Iterator[PhaseUse]:
    context = context_band(run.card).expected_bytes
    names = list(dict.fromkeys(mark.phase for mark in run.result.marks))
    for name in names:
        marks = [mark for mark in run.result.marks if mark.phase == name]
        top = max(marks, key=lambda mark: mark.allocated_peak_bytes)
        reserved = max(mark.reserved_peak_bytes for mark in marks)
        yield PhaseUse(
            name=name,
            component=top.component,
            allocated_peak_bytes=top.allocated_peak_bytes,
            reserved_peak_bytes=reserved,
            device_used_bytes=context + reserved,
        )


def _timeline(run: RunAtPeak) -> Iterator[TimelinePoint]:
    for mark in run.result.marks:
        yield TimelinePoint(
            phase=mark.phase,
            component=mark.component,
            allocated_bytes=mark.allocated_peak_bytes,
            reserved_bytes=mark.reserved_peak_bytes,
        )


def _need(run: RunAtPeak, device: Band) -> Need:
    """Return the least limit and the context; where memory spills, the device's peak."""
    expected = run.result.expected
    if run.settings.get("platform") in SPILLING_PLATFORMS:
        return Need(band=device, phase=run.mark.phase, component=run.mark.component)
    extra = cublas_band(run.compute_capability)[0]
    # least limits cross too: with more scratch the cache may be cut at better places
    limits = [scenario.least_limit_bytes for scenario in run.scenarios]
    packed = with_chance(
        Band(
            low_bytes=min(limits),
            expected_bytes=expected.least_limit_bytes,
            high_bytes=max(limits),
        )
    )
    band = replace(packed, high_bytes=packed.high_bytes + extra.high_bytes - extra.expected_bytes)
    return Need(
        band=context_band(run.card) + band,
        phase=expected.phase,
        component=expected.component,
    )


def _notes(run: RunAtPeak) -> Iterator[str]:
    result = run.result
    yield (
        "need is the CUDA context and the least limit under which the whole run completes; the "
        "device shows more where there is room, because torch keeps freed blocks"
    )
    warm, cold = result.warm_reserved_peak_bytes, result.expected.reserved_peak_bytes
    if warm != cold:
        yield (
            f"a second run in the same process reserves {format_size(warm, up=True)}, "
            f"the first {format_size(cold, up=True)}"
        )
    steps = run.settings.get("steps")
    if isinstance(steps, int) and steps < 8:
        yield "fewer than 8 steps are planned as 8: a scheduler's history grows at first"
