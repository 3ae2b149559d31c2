"""An estimate as tables and sentences."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from vramplan.model import (
    LANGUAGE_MODEL,
    PROJECTOR,
    Band,
    Component,
    Estimate,
    Line,
    LineKind,
    PhaseUse,
    PublishedFigure,
    buffer_bytes,
)
from vramplan.quick_typing import TypeVar
from vramplan.report import phrases
from vramplan.report.budget import work_of
from vramplan.report.colour import Tone
from vramplan.report.rows import Cell, Footnotes, NotedTable, Table, cell, table, without_empty
from vramplan.report.text import clean
from vramplan.units import MIB

T = TypeVar("T")


def component_table(estimate: Estimate) -> Table:
    """Return each component's parameters, dtype, weights and what it needs while it works."""
    large, small = _by_size(
        estimate.components,
        lambda one: max(one.weights_bytes, work_of(estimate, one.name)[1]),
    )
    rows = [_component_row(estimate, component) for component in large]
    rows += [_small_components(small)] if small else []
    totals = 0
    if len(rows) > 1:
        parameters = sum(component.parameters for component in estimate.components)
        weights = sum(component.weights_bytes for component in estimate.components)
        total = (f"{parameters:,}", "", phrases.need(weights), "", "")
        rows.append(
            (cell("total", tone=Tone.STRONG), *(cell(text, tone=Tone.STRONG) for text in total))
        )
        totals = 1
    headers = "component!, parameters#, dtype, weights#, at work#, on"
    return without_empty(table(headers, rows, totals=totals), "at work")


def _by_size(things: Sequence[T], size_of: Callable[[T], int]) -> tuple[list[T], list[T]]:
    """Return what has rows of its own, and what is below 1 MiB and shares one.

    Nothing shares a row alone, nor where there is nothing larger beside it.
    """
    small = [thing for thing in things if size_of(thing) < MIB]
    if len(small) < 2 or len(small) == len(things):
        return list(things), []
    return [thing for thing in things if size_of(thing) >= MIB], small


def _small_components(parts: Sequence[Component]) -> tuple[Cell, ...]:
    """Return one row for components that are below 1 MiB each."""
    dtypes, devices = {part.dtype for part in parts}, {part.device for part in parts}
    return (
        cell(f"{len(parts)} below 1 MiB"),
        cell(f"{sum(part.parameters for part in parts):,}"),
        cell(phrases.name(dtypes.pop()) if len(dtypes) == 1 else ""),
        cell(phrases.need(sum(part.weights_bytes for part in parts))),
        cell(phrases.NOTHING),
        cell(phrases.name(devices.pop()) if len(devices) == 1 else ""),
    )


def _component_row(estimate: Estimate, component: Component) -> tuple[Cell, ...]:
    phase, work = work_of(estimate, component.name)
    detail = "" if phase is None else phrases.name(phase)
    return (
        cell(phrases.name(component.name)),
        cell(f"{component.parameters:,}"),
        cell(phrases.name(component.dtype)),
        cell(phrases.need(component.weights_bytes)),
        cell(f"+{phrases.need(work)}", detail, joint="in {}")
        if work > 0
        else cell(phrases.NOTHING),
        cell(phrases.name(component.device)),
    )


def line_table(estimate: Estimate) -> NotedTable:
    """Return every line with low, expected and high, its origin and a footnote for its source."""
    footnotes = Footnotes()
    large, small = _by_size(estimate.lines, lambda line: line.band.high_bytes)
    rows = [_line_row(line, footnotes) for line in large]
    rows += [_small_lines(small, footnotes)] if small else []
    peak = estimate.peak
    place = phrases.place(peak.phase, peak.component)
    band = (peak.device.low_bytes, peak.device.expected_bytes, peak.device.high_bytes)
    figures = (cell(phrases.need(size), tone=Tone.STRONG) for size in band)
    label = cell("device at the peak", tone=Tone.STRONG)
    rows.append((label, cell(place), *figures, cell(""), cell("")))
    headers = "term, where, low#, expected#, high#, origin, source"
    return NotedTable(table=table(headers, rows, totals=1), notes=footnotes.notes)


def _line_row(line: Line, footnotes: Footnotes) -> tuple[Cell, ...]:
    where = " · ".join(
        phrases.name(part) for part in (line.phase, line.component) if part is not None
    )
    band = line.band
    return (
        cell(phrases.name(line.name)),
        cell(where or "whole process"),
        cell(phrases.need(band.low_bytes), tone=Tone.DIM),
        cell(phrases.need(band.expected_bytes)),
        cell(phrases.need(band.high_bytes), tone=Tone.DIM),
        cell(line.origin.value),
        cell(footnotes.number(clean(line.source))),
    )


def _small_lines(lines: Sequence[Line], footnotes: Footnotes) -> tuple[Cell, ...]:
    """Return one row for lines that are below 1 MiB each."""
    low, expected, high = (
        sum(sizes)
        for sizes in zip(
            *((b.low_bytes, b.expected_bytes, b.high_bytes) for b in (one.band for one in lines)),
            strict=True,
        )
    )
    origins = {line.origin for line in lines}
    marks = dict.fromkeys(footnotes.number(clean(line.source)) for line in lines)
    return (
        cell(f"{len(lines)} below 1 MiB"),
        cell(""),
        cell(phrases.need(low), tone=Tone.DIM),
        cell(phrases.need(expected)),
        cell(phrases.need(high), tone=Tone.DIM),
        cell(origins.pop().value if len(origins) == 1 else "several"),
        cell(" ".join(mark for mark in marks if mark)),
    )


def phase_table(estimate: Estimate) -> Table:
    """Return each phase's peaks as torch's two counters and the card see them."""
    rows = (
        (
            cell(phrases.name(phase.name)),
            cell(phrases.name(phase.component)),
            cell(phrases.need(phase.allocated_peak_bytes)),
            cell(phrases.need(phase.reserved_peak_bytes)),
            cell(phrases.need(phase.device_used_bytes)),
            cell("←" if _is_peak(estimate, phase) else "", tone=Tone.STRONG),
        )
        for phase in estimate.phases
    )
    headers = "phase!, component!, allocated peak#, reserved peak#, device used#, peak"
    return without_empty(table(headers, rows), "peak")


def _is_peak(estimate: Estimate, phase: PhaseUse) -> bool:
    return (phase.name, phase.component) == (estimate.peak.phase, estimate.peak.component)


def summary(estimate: Estimate) -> tuple[tuple[str, str], ...]:
    """Return the peak and the need as labelled sentences."""
    peak, least = estimate.peak, estimate.need
    where = f"{len(estimate.cards)} cards together" if estimate.cards else "the device"
    used = (
        f"{_band(peak.device)} of {where} used at {phrases.place(peak.phase, peak.component)}, "
        f"allocated {phrases.need(peak.allocated_bytes)}, "
        f"reserved {phrases.need(peak.reserved_bytes)}; "
        f"what nvidia-smi shows {phrases.of_what(estimate)}"
    )
    if estimate.cards:
        must = (
            f"{_band(least.band)} on {where}: each must have room for its own part, and the engine "
            "keeps a margin free on each"
        )
    elif estimate.layers is not None and estimate.settings.get("gpu_layers") == "auto":
        must = (
            f"{_band(least.band)} is the least a card must offer for all of it to be on the GPU; "
            "with less the engine leaves layers to the CPU"
        )
    else:
        must = (
            f"{_band(least.band)} is the least a card must offer for the run to complete; "
            f"with less it stops first at {phrases.place(least.phase, least.component)}"
        )
    return (("peak", used), ("need", must))


def _band(band: Band) -> str:
    return f"{phrases.need(band.expected_bytes)} ({phrases.spread(band)})"


def buffer_table(estimate: Estimate) -> Table | None:
    """Return a ggml engine's buffers on the GPU and in host memory, or None for other runtimes."""
    if not estimate.buffers:
        return None
    if estimate.cards:
        from vramplan.report.card_rows import card_table

        host = [buffer for buffer in estimate.buffers if buffer.device.is_host]
        return card_table(estimate.cards, host)
    sizes: tuple[tuple[str, int, int | None], ...] = (
        (
            "model",
            _on_gpu(estimate, LineKind.WEIGHTS, LANGUAGE_MODEL),
            _on_host(estimate, LineKind.WEIGHTS),
        ),
        (
            "KV cache",
            _on_gpu(estimate, LineKind.KV_CACHE),
            _on_host(estimate, LineKind.KV_CACHE),
        ),
        *_if_any("recurrent state", _on_gpu(estimate, LineKind.RECURRENT_STATE)),
        (
            "compute",
            _on_gpu(estimate, LineKind.COMPUTE_BUFFER),
            _on_host(estimate, LineKind.COMPUTE_BUFFER, LineKind.PROJECTOR_COMPUTE),
        ),
        *_if_any("projector", _on_gpu(estimate, LineKind.WEIGHTS, PROJECTOR)),
        *_if_any("projector compute", _on_gpu(estimate, LineKind.PROJECTOR_COMPUTE)),
        ("engine pools", _on_gpu(estimate, LineKind.ENGINE_POOL), None),
    )
    rows = (
        (
            cell(label),
            cell(phrases.need(gpu)),
            cell(phrases.NOTHING if host is None else phrases.need(host)),
        )
        for label, gpu, host in sizes
    )
    return table("buffer, on the GPU#, in host memory#", rows)


def _on_gpu(estimate: Estimate, kind: LineKind, component: str | None = None) -> int:
    return buffer_bytes(estimate.buffers, kind, component=component)


def _on_host(estimate: Estimate, *kinds: LineKind) -> int:
    return buffer_bytes(estimate.buffers, *kinds, on_host=True)


def _if_any(label: str, size_bytes: int) -> tuple[tuple[str, int, None], ...]:
    return ((label, size_bytes, None),) if size_bytes else ()


def layer_sentence(estimate: Estimate) -> str:
    """Return how many layers are on the GPU, or nothing where layers do not split."""
    layers = estimate.layers
    return "" if layers is None else layers.in_words()


def published_table(estimate: Estimate) -> NotedTable:
    """Return what others published beside ours, with the difference and where the claim holds."""
    footnotes = Footnotes()
    rows = tuple(_published_row(figure, footnotes) for figure in estimate.published)
    headers = "claim, published#, ours#, difference#, source, remark"
    return NotedTable(table=without_empty(table(headers, rows), "remark"), notes=footnotes.notes)


def _published_row(figure: PublishedFigure, footnotes: Footnotes) -> tuple[Cell, ...]:
    ours = figure.ours_bytes
    what = clean(figure.what, 160)
    # Both are somebody's figures, not a need and an offer: to the nearest.
    return (
        cell(clean(figure.claim, 240), what),
        cell(phrases.nearest(figure.published_bytes)),
        cell(phrases.NOTHING if ours is None else phrases.nearest(ours)),
        cell(phrases.NOTHING if ours is None else phrases.difference(ours, figure.published_bytes)),
        cell(footnotes.number(clean(figure.source))),
        cell(clean(figure.remark or "")),
    )


def notes(estimate: Estimate) -> tuple[str, ...]:
    """Return the assumptions and notes in harmless words."""
    return tuple(clean(note) for note in estimate.notes)
