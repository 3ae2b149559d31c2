"""Inline SVG: the parts every picture is drawn with, the stacked budget and the small meter.

Pictures are built as element trees, so a stranger's text can only ever be text. Colours are CSS
classes of the page: one drawing serves light, dark and paper. Where the page's styles are
forbidden, the parts' own attributes serve (`paint`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from xml.etree import ElementTree as ET

from vramplan.model import Band, Estimate
from vramplan.report import phrases
from vramplan.report.budget import Offer, Segment, segments
from vramplan.report.colour import Tone
from vramplan.report.paint import paint
from vramplan.units import GIB

WIDTH = 880
#: a picture's width on a telephone
NARROW = 340
#: widths of letters at the sizes the page uses, a little generous
_LETTER = 6.9
#: beyond this many times the need a card's line would squeeze the budget into a corner
_FARTHEST = 5

_BAR_TOP = 26
_BAR_HEIGHT = 44
_BAND_GAP = 30
_BAND_HEIGHT = 12


def start(identity: str, width: int, height: int, title: str, summary: str) -> ET.Element:
    """Return an empty picture with the two texts that stand for it where it cannot be seen.

    A page holds a picture twice, for wide and for narrow screens. Without its styles, which choose,
    the narrow one is not displayed.
    """
    svg = ET.Element(
        "svg",
        {
            "xmlns": "http://www.w3.org/2000/svg",
            "viewBox": f"0 0 {width} {height}",
            "role": "img",
            "aria-labelledby": f"{identity}-title {identity}-desc",
        },
    )
    if width == NARROW:
        svg.set("class", "narrow")
        svg.set("display", "none")
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


def draw_budget(
    identity: str, estimate: Estimate, cards: Sequence[Offer], width: int = WIDTH
) -> str:
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
    svg = start(identity, width, bottom + 26, title, summary)
    _hatch(svg, identity)
    scale = width / largest
    band_top = top + _BAR_HEIGHT + _BAND_GAP
    _stack(svg, identity, pieces, top, scale)
    _band(svg, least, band_top, scale)
    _axis(svg, width, largest, bottom, scale)
    _card_lines(svg, width, lines, bottom, scale)
    used = phrases.need(in_use.expected_bytes)
    when = "" if width == NARROW else f" {phrases.of_what(estimate)}"
    least_words = "needed" if width == NARROW else "the least a card must offer"
    write(svg, 0, top - 8, f"in use at the peak{when}: {used}", css="label")
    write(svg, 0, band_top - 8, f"{least_words}: {needed}", css="label")
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
    for piece in pieces:
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
        label = shorten(piece.short, width - 8) if width >= 40 else ""
        if label:
            write(
                group,
                middle,
                top + _BAR_HEIGHT / 2 + 4,
                label,
                css=f"inside on-{piece.kind}",
                anchor="middle",
            )
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


def _axis(svg: ET.Element, width: int, largest: int, y: int, scale: float) -> None:
    shown = ticks(largest, most=max(4, width // 110))
    marks = "".join(f"M{figure(tick * scale)} {y}v5" for tick in shown)
    add(svg, "path", {"d": f"M0 {y}H{width}{marks}", "css": "axis"})
    for tick in shown:
        x = tick * scale
        anchor = "start" if tick == 0 else "end" if x > width - 24 else "middle"
        write(svg, x, y + 19, phrases.axis(tick), css="tick", anchor=anchor)


def _card_lines(
    svg: ET.Element, width: int, lines: Sequence[Offer], bottom: int, scale: float
) -> None:
    for row, line in enumerate(lines):
        x = max(0.0, line.budget_bytes * scale)
        y = 14 + 18 * row
        text = f"{line.label} offers {phrases.available(line.budget_bytes)}"
        add(svg, "path", {"d": f"M{x:.1f} {y - 10}V{bottom}", "css": "card"})
        is_late = x > width - _LETTER * len(text) - 10
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


#: a bar's room, and where in it the card's limit stands
_METER_WIDTH, _METER_HEIGHT, _METER_LIMIT = 400, 18, 300


def draw_meter(need: Band, budget_bytes: int, kind: str) -> str:
    """Return a bar of the need as a share of the budget, which is the line at three quarters of it.

    The words beside it say the same, so it is nothing to a reader who cannot see it. It is
    stretched to the room there is: no text is in it, and its lines keep their width.
    """
    shape = {"xmlns": "http://www.w3.org/2000/svg", "preserveAspectRatio": "none"}
    shape |= {"viewBox": f"0 0 {_METER_WIDTH} {_METER_HEIGHT}", "aria-hidden": "true"}
    svg = ET.Element("svg", {**shape, "class": "meter"})
    budget = max(budget_bytes, 1)

    def place(size_bytes: int) -> float:
        return min(_METER_WIDTH, max(0.0, size_bytes / budget * _METER_LIMIT))

    bar: dict[str, float | str] = {"x": 0, "y": 3, "height": 12}
    add(svg, "rect", {**bar, "width": _METER_WIDTH, "css": "rail"})
    expected = max(place(need.expected_bytes), 2)
    add(svg, "rect", {**bar, "width": expected, "css": f"bar-{kind}"})
    low, high = place(need.low_bytes), place(need.high_bytes)
    steady: dict[str, float | str] = {"vector_effect": "non-scaling-stroke"}
    if high > low:
        add(svg, "path", {"d": f"M{low:.1f} 9H{high:.1f}", "css": "whisker", **steady})
    if need.expected_bytes / budget * _METER_LIMIT > _METER_WIDTH:  # it goes on beyond the edge
        torn = f"M{_METER_WIDTH - 14} 1V17M{_METER_WIDTH - 8} 1V17"
        add(svg, "path", {"d": torn, "css": "torn", **steady})
    limit: dict[str, float | str] = {"d": f"M{_METER_LIMIT} 0V{_METER_HEIGHT}", "css": "limit"}
    add(svg, "path", {**limit, **steady})
    return finish(paint(svg))
