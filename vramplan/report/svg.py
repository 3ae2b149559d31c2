"""Inline SVG: the parts every picture is drawn with, the stacked budget and the small meter.

Pictures are built as element trees, so a stranger's text can only ever be text. Colours are CSS
classes of the page: one drawing serves light, dark and paper. Where the page's styles are
forbidden, the parts' own attributes serve (`paint`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from xml.etree import ElementTree as ET

from vramplan.model import Band, Estimate, Verdict
from vramplan.report import phrases
from vramplan.report.budget import Offer, Segment, segments
from vramplan.report.colour import Tone
from vramplan.report.paint import paint
from vramplan.units import GIB

WIDTH = 880
#: widths of letters at the sizes the page uses, a little generous
_LETTER = 6.9
#: beyond this many times the need a card's line would squeeze the budget into a corner
_FARTHEST = 5

_BAR_TOP = 26
_BAR_HEIGHT = 44
_BAND_GAP = 30
_BAND_HEIGHT = 12


def start(identity: str, width: int, height: int, title: str, summary: str) -> ET.Element:
    """Return an empty picture with the two texts that stand for it where it cannot be seen."""
    svg = ET.Element(
        "svg",
        {
            "xmlns": "http://www.w3.org/2000/svg",
            "viewBox": f"0 0 {width} {height}",
            "role": "img",
            "aria-labelledby": f"{identity}-title {identity}-desc",
        },
    )
    for tag, text in (("title", title), ("desc", summary)):
        ET.SubElement(svg, tag, {"id": f"{identity}-{tag}"}).text = text
    return svg


def add(parent: ET.Element, tag: str, shape: Mapping[str, float | str]) -> ET.Element:
    """Add an element; numbers are written with one decimal, `css` is its class."""
    attributes = {
        ("class" if key == "css" else key.replace("_", "-")): figure(value)
        for key, value in shape.items()
    }
    return ET.SubElement(parent, tag, attributes)


def write(
    parent: ET.Element, x: float, y: float, text: str, *, css: str, anchor: str = "start"
) -> None:
    """Add a line of text."""
    shape: dict[str, float | str] = {"x": x, "y": y, "css": css, "text-anchor": anchor}
    add(parent, "text", shape).text = text


def figure(value: float | str) -> str:
    """Return an attribute's value: a number with at most one decimal."""
    if isinstance(value, str):
        return value
    return f"{value:.1f}".removesuffix(".0")


def finish(svg: ET.Element) -> str:
    """Return the picture as text that may stand in a page as it is."""
    return ET.tostring(svg, encoding="unicode", short_empty_elements=True)


def shorten(text: str, room: float) -> str:
    """Return as much of `text` as fits into `room` units, or nothing."""
    letters = int(room / _LETTER)
    if len(text) <= letters:
        return text
    return text[: letters - 1] + "…" if letters >= 4 else ""


def ticks(largest: int, most: int = 8) -> list[int]:
    """Return round sizes from 0 to `largest`, at most `most` of them."""
    step = GIB // 8
    while largest // step >= most:
        step *= 2
    return list(range(0, largest + 1, step))


def shown_lines(cards: Sequence[Offer], need_bytes: int) -> tuple[Offer, ...]:
    """Return the cards whose lines fit into a picture of `need_bytes`; the nearest one always."""
    near = tuple(card for card in cards if card.budget_bytes <= _FARTHEST * need_bytes)
    return near or tuple(cards[:1])


def highest_bytes(estimate: Estimate) -> int:
    """Return the largest size that a picture of the budget must have room for."""
    stack = sum(piece.size_bytes for piece in segments(estimate))
    return max(stack, estimate.peak.device.high_bytes, estimate.need.band.high_bytes, 1)


def draw_budget(identity: str, estimate: Estimate, cards: Sequence[Offer]) -> str:
    """Return the stacked budget at its peak, the band of the need, and a line for each card."""
    pieces = segments(estimate)
    in_use, least = estimate.peak.device, estimate.need.band
    highest = highest_bytes(estimate)
    lines = shown_lines(cards, highest)
    largest = int(1.04 * max(highest, *(line.budget_bytes for line in lines), 1))
    top = 18 * len(lines) + _BAR_TOP
    bottom = top + _BAR_HEIGHT + _BAND_GAP + _BAND_HEIGHT + 14
    needed = f"{phrases.need(least.expected_bytes)} ({phrases.spread(least)})"
    summary = (
        f"In use at the peak: {phrases.need(in_use.expected_bytes)}. "
        f"Needed: {needed}. "
        + " ".join(f"{line.label} offers {phrases.available(line.budget_bytes)}." for line in lines)
    )
    title = f"Memory budget of {phrases.name(estimate.pipeline)}"
    svg = start(identity, WIDTH, bottom + 26, title, summary)
    _hatch(svg, identity)
    scale = WIDTH / largest
    band_top = top + _BAR_HEIGHT + _BAND_GAP
    _stack(svg, identity, pieces, top, scale)
    _band(svg, least, band_top, scale)
    _axis(svg, largest, bottom, scale)
    _card_lines(svg, lines, bottom, scale)
    used = phrases.need(in_use.expected_bytes)
    write(svg, 0, top - 8, f"in use at the peak {phrases.of_what(estimate)}: {used}", css="label")
    write(svg, 0, band_top - 8, f"the least a card must offer: {needed}", css="label")
    return finish(paint(svg))


def _hatch(svg: ET.Element, identity: str) -> None:
    """Define the hatching that tells slack apart without its colour."""
    shape: dict[str, float | str] = {"width": 6, "height": 6, "patternUnits": "userSpaceOnUse"}
    shape |= {"id": f"{identity}-hatch", "patternTransform": "rotate(45)"}
    pattern = add(add(svg, "defs", {}), "pattern", shape)
    add(pattern, "rect", {"width": 6, "height": 6, "css": "fill-slack"})
    add(pattern, "line", {"x1": 0, "y1": 0, "x2": 0, "y2": 6, "css": "hatching"})


def _stack(
    svg: ET.Element, identity: str, pieces: Sequence[Segment], top: int, scale: float
) -> None:
    x = 0.0
    for number, piece in enumerate(pieces, start=1):
        width = piece.size_bytes * scale
        group = add(svg, "g", {})
        ET.SubElement(group, "title").text = f"{piece.label}: {phrases.need(piece.size_bytes)}"
        shape: dict[str, float | str] = {
            "x": x,
            "y": top,
            "width": max(width - 1, 1),
            "height": _BAR_HEIGHT,
            "css": f"piece fill-{piece.kind}",
        }
        if piece.kind is Tone.SLACK:
            shape |= {"fill": f"url(#{identity}-hatch)", "css": "piece"}
        add(group, "rect", shape)
        middle = x + width / 2
        if width >= 12:
            number_top = top + (19 if width >= 40 else 27)
            css = f"number on-{piece.kind}"
            write(group, middle, number_top, str(number), css=css, anchor="middle")
        label = shorten(piece.short, width - 8) if width >= 40 else ""
        if label:
            write(group, middle, top + 35, label, css=f"inside on-{piece.kind}", anchor="middle")
        x += width


def _band(svg: ET.Element, band: Band, top: int, scale: float) -> None:
    """Draw a bar up to the expected size, with a whisker from low to high."""
    middle = top + _BAND_HEIGHT / 2
    expected = band.expected_bytes * scale
    add(svg, "rect", {"x": 0, "y": top, "width": expected, "height": _BAND_HEIGHT, "css": "need"})
    low, high = band.low_bytes * scale, band.high_bytes * scale
    cap = f"V{top + _BAND_HEIGHT + 3}"
    caps = f"M{low:.1f} {top - 3}{cap}M{high:.1f} {top - 3}{cap}"
    add(svg, "path", {"d": f"M{low:.1f} {middle:.1f}H{high:.1f}{caps}", "css": "whisker"})


def _axis(svg: ET.Element, largest: int, y: int, scale: float) -> None:
    add(svg, "path", {"d": f"M0 {y}H{WIDTH}", "css": "axis"})
    for tick in ticks(largest):
        x = tick * scale
        add(svg, "path", {"d": f"M{x:.1f} {y}v5", "css": "axis"})
        anchor = "start" if tick == 0 else "end" if x > WIDTH - 24 else "middle"
        write(svg, x, y + 19, phrases.axis(tick), css="tick", anchor=anchor)


def _card_lines(svg: ET.Element, lines: Sequence[Offer], bottom: int, scale: float) -> None:
    for row, line in enumerate(lines):
        x = max(0.0, line.budget_bytes * scale)
        y = 14 + 18 * row
        text = f"{line.label} offers {phrases.available(line.budget_bytes)}"
        add(svg, "path", {"d": f"M{x:.1f} {y - 10}V{bottom}", "css": "card"})
        is_late = x > WIDTH - _LETTER * len(text) - 10
        write(
            svg,
            x - 6 if is_late else x + 6,
            y,
            text,
            css="card-label",
            anchor="end" if is_late else "start",
        )


def draw_swatch(css: str) -> str:
    """Return a small square in a part's colour, for a legend: words stand beside it."""
    shape = {"xmlns": "http://www.w3.org/2000/svg", "viewBox": "0 0 12 12", "class": "swatch"}
    svg = ET.Element("svg", {**shape, "width": "12", "height": "12", "aria-hidden": "true"})
    add(svg, "rect", {"width": 12, "height": 12, "rx": 3, "css": css})
    if css == f"fill-{Tone.SLACK}":
        add(svg, "path", {"d": "M0 12L12 0", "css": "hatching"})
    return finish(paint(svg))


def draw_meter(identity: str, verdict: Verdict) -> str:
    """Return a small bar of the need, its band, and the budget's line."""
    width, height = 160, 16
    need = verdict.need
    largest = max(need.high_bytes, verdict.budget_bytes, 1) * 1.05
    title = f"{phrases.name(verdict.pipeline)} on {phrases.name(verdict.card)}"
    summary = (
        f"needs {phrases.need(need.expected_bytes)} of {phrases.available(verdict.budget_bytes)}"
    )
    svg = start(identity, width, height, title, summary)
    scale = width / largest
    add(svg, "rect", {"x": 0, "y": 4, "width": width, "height": 8, "rx": 2, "css": "rail"})
    expected = max(need.expected_bytes * scale, 1)
    add(
        svg,
        "rect",
        {"x": 0, "y": 4, "width": expected, "height": 8, "rx": 2, "css": f"bar-{verdict.kind}"},
    )
    low, high = need.low_bytes * scale, need.high_bytes * scale
    add(svg, "path", {"d": f"M{low:.1f} 8H{high:.1f}M{high:.1f} 5V11", "css": "whisker"})
    budget = max(0.0, verdict.budget_bytes * scale)
    add(svg, "path", {"d": f"M{budget:.1f} 0V{height}", "css": "limit"})
    return finish(paint(svg))
