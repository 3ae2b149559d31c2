"""The budget of a pipeline that runs in torch, line by line."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from vramplan.budget.cuda_context import context_band, context_line
from vramplan.engines.torch.activations import activations_line
from vramplan.engines.torch.allocator_slack import slack_line
from vramplan.engines.torch.another_cache import as_grown, is_static, is_told
from vramplan.engines.torch.attention_kernel import parse_capability
from vramplan.engines.torch.changed_weights import are_changed, beside_at_limit, has_adapters
from vramplan.engines.torch.convolution_workspace import convolution_lines
from vramplan.engines.torch.cublas_workspace import cublas_line
from vramplan.engines.torch.decoder_tape import decoded_by_tape
from vramplan.engines.torch.gradients import gradients_lines
from vramplan.engines.torch.job_tape import tape_at
from vramplan.engines.torch.optimizer_state import optimizer_state_lines
from vramplan.engines.torch.padding import padding_note
from vramplan.engines.torch.peak import RunAtPeak
from vramplan.engines.torch.pipeline import TorchPipeline
from vramplan.engines.torch.replayed import (
    ANY_CAPABILITY,
    conditions_at,
    has_code_at,
    has_defaults,
    holds_at,
    on_card,
    replay_run,
    result_key,
)
from vramplan.engines.torch.result import Replayed
from vramplan.engines.torch.run_limits import limits_band
from vramplan.engines.torch.shipped_results import remembered
from vramplan.engines.torch.tape_files import find_tape, look_for_tape, open_tape, tape_proof
from vramplan.engines.torch.weights import components, weights_lines
from vramplan.known_settings import IDLE
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
from vramplan.quick_dataclass import replace
from vramplan.quick_typing import TYPE_CHECKING
from vramplan.setting_values import SPILLING_PLATFORMS
from vramplan.units import format_size

if TYPE_CHECKING:
    pass


def estimate_torch(pipeline: TorchPipeline, settings: Settings, card: Card) -> Estimate:
    """Return the budget of a torch pipeline on a card, from its tape, or counted without one.

    Raises TapeError where there is no tape, or none that holds for these settings.
    """
    if pipeline.cache_layers and is_told(settings):
        return _estimate_with_cache(pipeline, settings, card)
    if pipeline.counted is not None:
        return _estimate_saved(pipeline, settings, card)
    path = find_tape(pipeline)
    result = replayed(pipeline, on_card(settings, card), card.compute_capability, path)
    bare = None
    if has_adapters(settings):
        without = on_card({**settings, "lora": IDLE["lora"]}, card)
        bare = replayed(pipeline, without, card.compute_capability, path)
    run = RunAtPeak(pipeline=pipeline, settings=settings, card=card, result=result, bare=bare)
    return _budget(run)


def _estimate_with_cache(pipeline: TorchPipeline, settings: Settings, card: Card) -> Estimate:
    """Return the budget with another cache than the growing one: recorded where it can be."""
    if pipeline.counted is not None and is_static(settings):
        from vramplan.engines.torch.recorded_model import record_saved

        if record_saved(pipeline, settings, card.compute_capability).pipeline is not None:
            return _estimate_saved(pipeline, settings, card)
    from vramplan.engines.torch.kv_cache import with_cache

    grown = estimate_torch(pipeline, as_grown(settings), card)
    return with_cache(grown, pipeline.cache_layers, settings)


def _estimate_saved(pipeline: TorchPipeline, settings: Settings, card: Card) -> Estimate:
    """Return the budget of a saved model without a tape: recorded here, or else counted."""
    from vramplan.engines.torch.recorded_model import record_saved

    attempt = record_saved(pipeline, settings, card.compute_capability)
    if attempt.pipeline is None:
        from vramplan.engines.torch.counted import estimate_counted

        found = carried_on(pipeline, settings, card) or near(pipeline, settings, card)
        if found is None:
            from vramplan.engines.torch.near_tape import raised

            decoded = decoded_by_tape(pipeline, settings, card.compute_capability)
            found = estimate_counted(pipeline, settings, card, decoded)
            found = raised(found, pipeline, settings, card)
        said = filter(None, (pipeline.beyond_tape, attempt.reason))
        return replace(found, notes=(*found.notes, *said))
    found = estimate_torch(attempt.pipeline, settings, card)
    made_with = open_tape(find_tape(attempt.pipeline)).recorded_with
    versions = ", ".join(f"{name} {version}" for name, version in made_with.items())
    note = f"recorded here by its class's own code, without data, at these settings ({versions})"
    said = filter(None, (note, pipeline.beyond_tape, attempt.reason))
    return replace(found, notes=(*said, *found.notes))


def carried_on(pipeline: TorchPipeline, settings: Settings, card: Card) -> Estimate | None:
    """Return the budget by a tape that has the code and does not hold at these sizes, or None."""
    name = pipeline.carried_tape
    if name is None:
        return None
    from vramplan.engines.torch.beyond_tape import estimate_beyond

    carried = replace(
        pipeline, tape=name, tape_within=None, counted=None, saved=None, is_carried_on=True
    )
    return estimate_beyond(
        open_tape(find_tape(carried)),
        pipeline.defaults,
        settings,
        lambda at: estimate_torch(carried, at, card),
    )


def near(pipeline: TorchPipeline, settings: Settings, card: Card) -> Estimate | None:
    """Return the budget by the nearest settings that a tape has the code for, or None."""
    if pipeline.tape_within is None:
        return None
    from vramplan.engines.torch.near_tape import estimate_near

    return estimate_near(
        pipeline, settings, card, lambda taped, there: estimate_torch(taped, there, card)
    )


def with_tape(pipeline: TorchPipeline, settings: Settings, card: Card) -> TorchPipeline:
    """Return a pipeline as it is, or a saved model's with the tape of a recording if there is."""
    if pipeline.counted is None:
        return pipeline
    from vramplan.engines.torch.recorded_model import record_saved

    return record_saved(pipeline, settings, card.compute_capability).pipeline or pipeline


def settled(
    pipeline: TorchPipeline, settings: Settings, compute_capability: str = ANY_CAPABILITY
) -> TorchPipeline:
    """Return an entry's pipeline with its tape where that holds at these settings, else as it is.

    At its defaults every tape holds where an architecture has fused kernels.
    """
    if pipeline.tape_within is None or pipeline.counted is None:
        return pipeline
    name, dtype = pipeline.tape_within, settings.get("dtype")
    names = [name] if dtype == pipeline.defaults.get("dtype") else [f"{name}.{dtype}", name]
    for one in names:
        taped = replace(pipeline, tape=one, tape_within=None, counted=None, saved=None)
        path = look_for_tape(taped)
        if path is None:
            continue
        is_usual = not pipeline.has_own_defaults and has_defaults(pipeline, settings)
        has_fused = parse_capability(compute_capability) >= (8, 0)
        if (is_usual and has_fused) or holds_at(
            taped, settings, compute_capability, open_tape(path)
        ):
            return taped
        from vramplan.engines.torch.facts import numbers_at

        tape = open_tape(path)
        why = tape.outside(numbers_at(settings)) or "it has no recording of these"
        carried = pipeline.carried_tape
        if carried is None and has_code_at(taped, settings, compute_capability, tape):
            carried = one
        pipeline = replace(
            pipeline,
            beyond_tape=f"the tape {one} does not hold here: {why}",
            carried_tape=carried,
        )
    return pipeline


def replayed(
    pipeline: TorchPipeline, settings: Settings, compute_capability: str, path: Path
) -> Replayed:
    """Return the replay's result at these settings, shipped or made now."""
    key = result_key(path, pipeline, settings, compute_capability)

    def replay() -> Replayed:
        tape = tape_at(pipeline, settings, path)
        conditions = conditions_at(pipeline, settings, compute_capability, tape)
        expandable = settings.get("expandable_segments") == "on"
        return replay_run(tape, conditions, compute_capability, expandable_segments=expandable)

    return remembered(path, key, replay, lambda: tape_proof(path))


def _budget(run: RunAtPeak) -> Estimate:
    """Return a replayed run as a budget."""
    lines = tuple(_lines(run))
    device = sum((line.band for line in lines[1:]), lines[0].band)
    expected = run.result.expected
    beside = run.beside.band.expected_bytes
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
            allocated_bytes=expected.allocated_peak_bytes + beside,
            reserved_bytes=expected.reserved_peak_bytes + beside,
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
    if are_changed(run.settings):
        from vramplan.engines.torch.adapter_results import adapter_lines
        from vramplan.engines.torch.network_results import network_lines
        from vramplan.engines.torch.unpacked_weights import unpacked_lines

        yield from network_lines(run)
        yield from adapter_lines(run)
        yield from unpacked_lines(run)
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
    if run.settings.get("platform") in SPILLING_PLATFORMS:
        return Need(band=device, phase=run.mark.phase, component=run.mark.component)
    low, expected, high = (scenario.least_limit_bytes for scenario in run.scenarios)
    at_work = limits_band(low, expected, high, run.compute_capability)
    place = run.result.expected.component
    beside = beside_at_limit(run.pipeline, run.settings, place, expected, run.result.parts)
    return Need(
        band=context_band(run.card) + at_work + beside,
        phase=run.result.expected.phase,
        component=run.result.expected.component,
    )


def _notes(run: RunAtPeak) -> Iterator[str]:
    result = run.result
    yield (
        "need is the CUDA context and the least limit under which the whole run completes; the "
        "device shows more where there is room, because torch keeps freed blocks"
    )
    if (padded := padding_note(run.pipeline, run.settings)) is not None:
        yield padded
    warm, cold = result.warm_reserved_peak_bytes, result.expected.reserved_peak_bytes
    if warm != cold:
        yield (
            f"a second run in the same process reserves {format_size(warm, up=True)}, "
            f"the first {format_size(cold, up=True)}"
        )
    steps = run.settings.get("steps")
    if isinstance(steps, int) and steps < 8:
        yield "fewer than 8 steps are planned as 8: a scheduler's history grows at first"
