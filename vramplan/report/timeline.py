"""Inline SVG of a run's memory, phase by phase: allocated inside reserved, above the context."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import groupby
from xml.etree import ElementTree as ET

from vramplan.model import Estimate, TimelinePoint
from vramplan.quick_dataclass import dataclass
from vramplan.report import phrases
from vramplan.report.budget import Offer, context_bytes, steps
from vramplan.report.paint import paint
from vramplan.report.svg import NARROW, WIDTH, add, finish, shorten, start, ticks, write

_LEFT = 62
_TOP = 16
_PLOT_HEIGHT = 260
_STRIP_HEIGHT = 24
#: a card's line farther above the peak than this would flatten the run
_FARTHEST = 1.6


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """Steps of one phase and component that follow one another, and where they are drawn."""

    phase: str
    component: str
    steps: tuple[TimelinePoint, ...]
    left: float
    width: float


def draw_timeline(
    identity: str, estimate: Estimate, cards: Sequence[Offer], width: int = WIDTH
) -> str:
    """Return the picture of the run, or nothing where there is nothing to draw.

    The horizontal axis is the order of allocations, not time: a phase gets room by the square root
    of its steps, so that a short one can be read beside fifty denoising steps.
    """
    points = steps(estimate)
    if not points:
        return ""
    base = context_bytes(estimate)
    highest = base + max(max(point.reserved_bytes, point.allocated_bytes) for point in points)
    lines = [card for card in cards if card.budget_bytes <= _FARTHEST * highest]
    largest = int(1.08 * max(highest, *(card.budget_bytes for card in lines), 1))
    live = max(points, key=lambda point: point.allocated_bytes)
    right = width - 4
    svg = start(
        identity,
        width,
        _TOP + _PLOT_HEIGHT + (1 if width == NARROW else 2) * _STRIP_HEIGHT + 10,
        f"Memory of {phrases.name(estimate.pipeline)} by phase",
        f"Allocated memory is highest in {phrases.place(live.phase, live.component)}, at "
        f"{phrases.need(live.allocated_bytes)}; with what the allocator holds and the CUDA context "
        f"the device has {phrases.need(highest)} in use at most.",
    )
    scale = _PLOT_HEIGHT / largest
    bottom = _TOP + _PLOT_HEIGHT
    _grid(svg, right, largest, scale)
    runs = _runs(points, right - _LEFT)
    if base:
        height = base * scale
        shape = {"x": _LEFT, "width": right - _LEFT, "y": bottom - height, "height": height}
        add(svg, "rect", {**shape, "css": "base"})
        if height >= 14:
            text = f"CUDA context {phrases.need(base)}"
            write(svg, _LEFT + 8, bottom - height / 2 + 4, text, css="base-label")
    floor = bottom - base * scale
    for held, css in ((True, "reserved"), (False, "allocated")):
        add(svg, "path", {"d": _area(runs, held=held, floor=floor, scale=scale), "css": css})
    for card in lines:
        y = bottom - max(0, card.budget_bytes) * scale
        add(svg, "path", {"d": f"M{_LEFT} {y:.1f}H{right}", "css": "card"})
    peak_x = _mark_peak(svg, width, runs, live, floor - live.allocated_bytes * scale)
    _strips(svg, runs, bottom, has_components=width != NARROW)
    is_left = peak_x > width / 2  # the peak has its words on the other side
    for card in lines:
        y = bottom - max(0, card.budget_bytes) * scale
        text = f"{card.label} offers {phrases.available(card.budget_bytes)}"
        x, anchor = (_LEFT + 4, "start") if is_left else (right - 4, "end")
        write(svg, x, y - 5, text, css="card-label", anchor=anchor)
    return finish(paint(svg))


def _runs(points: Sequence[TimelinePoint], room: int) -> list[Run]:
    """Return the runs from left to right: first each phase gets its room, then its components."""
    phases = [tuple(group) for _, group in groupby(points, key=lambda point: point.phase)]
    runs, left = [], float(_LEFT)
    for phase, share in zip(phases, _shares(phases, room), strict=True):
        parts = [tuple(group) for _, group in groupby(phase, key=lambda point: point.component)]
        for part, width in zip(parts, _shares(parts, share), strict=True):
            first = part[0]
            runs.append(
                Run(
                    phase=first.phase, component=first.component, steps=part, left=left, width=width
                )
            )
            left += width
    return runs


def _shares(groups: Sequence[Sequence[TimelinePoint]], room: float) -> list[float]:
    """Return how much of `room` each group gets: half of it is shared evenly."""
    roots = [math.sqrt(len(group)) for group in groups]
    return [room / 2 / len(groups) + room / 2 * root / sum(roots) for root in roots]


def _levels(run: Run, *, held: bool) -> list[int]:
    """Return a run's sizes, about one for each unit of width: extremes in the order they came."""
    sizes = [step.reserved_bytes if held else step.allocated_bytes for step in run.steps]
    room = max(2, int(run.width))
    if len(sizes) <= room:
        return sizes
    share = -(-len(sizes) // (room // 2))
    buckets = [sizes[first : first + share] for first in range(0, len(sizes), share)]
    return [size for bucket in buckets for size in _extremes(bucket)]


def _extremes(sizes: Sequence[int]) -> tuple[int, int]:
    least, most = min(sizes), max(sizes)
    return (least, most) if sizes.index(least) < sizes.index(most) else (most, least)


def _area(runs: Sequence[Run], *, held: bool, floor: float, scale: float) -> str:
    """Return the outline of a step area that stands on `floor`."""
    path = [f"M{_LEFT} {floor:.1f}"]
    for run in runs:
        levels = _levels(run, held=held)
        width = run.width / len(levels)
        for index, size in enumerate(levels, start=1):
            path.append(f"V{floor - size * scale:.1f}H{run.left + index * width:.1f}")
    return "".join([*path, f"V{floor:.1f}Z"])


def _grid(svg: ET.Element, right: int, largest: int, scale: float) -> None:
    bottom = _TOP + _PLOT_HEIGHT
    for tick in ticks(largest, most=7):
        y = bottom - tick * scale
        add(svg, "path", {"d": f"M{_LEFT} {y:.1f}H{right}", "css": "axis" if tick == 0 else "grid"})
        write(svg, _LEFT - 8, y + 4, phrases.axis(tick), css="tick", anchor="end")


def _mark_peak(
    svg: ET.Element, width: int, runs: Sequence[Run], peak: TimelinePoint, y: float
) -> float:
    """Mark the peak and return how far to the right it is."""
    run = next(run for run in runs if peak in run.steps)
    x = run.left + run.width * (run.steps.index(peak) + 0.5) / len(run.steps)
    add(svg, "circle", {"cx": x, "cy": y, "r": 4, "css": "dot"})
    text = f"allocated peak {phrases.need(peak.allocated_bytes)}"
    anchor = "end" if x > width * 0.7 else "start" if x < width * 0.3 else "middle"
    write(svg, x, y - 9, text, css="dot-label", anchor=anchor)
    return x


def _strips(svg: ET.Element, runs: Sequence[Run], bottom: int, *, has_components: bool) -> None:
    """Draw below the axis which phase runs, and below that which component."""
    rows = [[list(group) for _, group in groupby(runs, key=lambda run: run.phase)]]
    rows += [[[run] for run in runs]] if has_components else []
    for row, groups in enumerate(rows):
        for group in groups:
            left, width = group[0].left, sum(run.width for run in group)
            name = phrases.name(group[0].component if row else group[0].phase)
            y = bottom + 4 + row * _STRIP_HEIGHT
            cell = add(svg, "g", {})
            ET.SubElement(cell, "title").text = name
            shape: dict[str, float | str] = {"x": left + 0.5, "y": y, "width": max(width - 1, 0.5)}
            css = "strip-component" if row else "strip-phase"
            add(cell, "rect", {**shape, "height": _STRIP_HEIGHT - 2, "rx": 2, "css": css})
            label = shorten(name, width - 6)
            if label:
                css = "strip-label" if row else "strip-label strong"
                write(cell, left + width / 2, y + 15, label, css=css, anchor="middle")
