"""Inline SVG of a program's run on a pretended card: how full the card was, and which line ran."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from xml.etree import ElementTree as ET

from vramplan.measurement.tried import Moment, Trial, TrialOutcome
from vramplan.report import phrases
from vramplan.report.paint import paint
from vramplan.report.svg import NARROW, WIDTH, add, finish, shorten, start, ticks, write
from vramplan.report.text import clean

_LEFT = 62
_TOP = 22
_HEIGHT = 240
_STRIP = 24
#: stretches of one line of code; with more of them the strip is noise
_MOST_STRETCHES = 30


def draw_trial(identity: str, one: Trial, width: int = WIDTH) -> str:
    """Return the picture of a run, or nothing where there is nothing to draw.

    The horizontal axis is what the card was given to do, not time: a pretended card knows none.
    """
    moments = one.timeline
    if len(moments) < 2:
        return ""
    live = max(moments, key=lambda moment: moment.allocated_bytes)
    context = one.context_bytes[1]
    highest = max(one.device_peak_bytes, context + max(m.reserved_bytes for m in moments))
    has_limit = one.total_bytes <= 2 * highest
    scale = _HEIGHT / (1.06 * max(highest, one.total_bytes if has_limit else 0))
    right, bottom = width - 4, _TOP + _HEIGHT
    stretches = _stretches(moments)
    svg = start(
        identity,
        width,
        bottom + 26 + (_STRIP if stretches else 0),
        f"Memory over the run on {clean(one.card, 80)}",
        f"Allocated memory is highest at {phrases.need(live.allocated_bytes)}; with what torch "
        f"holds and the CUDA context the card has {phrases.need(highest)} in use at most, of "
        f"{phrases.available(one.total_bytes)}.",
    )
    for tick in ticks(int(_HEIGHT / scale), most=7):
        y = bottom - tick * scale
        add(svg, "path", {"d": f"M{_LEFT} {y:.1f}H{right}", "css": "grid" if tick else "axis"})
        write(svg, _LEFT - 8, y + 4, phrases.axis(tick), css="tick", anchor="end")
    height = context * scale
    shape = {"x": _LEFT, "width": right - _LEFT, "y": bottom - height, "height": height}
    add(svg, "rect", {**shape, "css": "base"})
    floor = bottom - height
    places = _places(moments, right)
    for sizes, css in (
        ([moment.reserved_bytes for moment in moments], "reserved"),
        ([moment.allocated_bytes for moment in moments], "allocated"),
    ):
        add(svg, "path", {"d": _area(places, sizes, floor, scale), "css": css})
    x = places[moments.index(live)]
    _limit(svg, one, right, bottom - one.total_bytes * scale if has_limit else None)
    _peak(svg, one, live, (x, floor - live.allocated_bytes * scale), width)
    write(svg, _LEFT, bottom + 17, "start", css="tick")
    text = f"{moments[-1].launches:,} launches and copies"
    write(svg, right, bottom + 17, text, css="tick", anchor="end")
    _strip(svg, stretches, moments, places, bottom + 24)
    return finish(paint(svg))


def _places(moments: Sequence[Moment], right: int) -> list[float]:
    """Return where each moment begins; the last has a little room, too."""
    last = moments[-1].launches + max(1, moments[-1].launches // 100)
    return [_LEFT + (right - _LEFT) * moment.launches / last for moment in moments] + [right]


def _area(places: Sequence[float], sizes: Sequence[int], floor: float, scale: float) -> str:
    path = [f"M{places[0]:.1f} {floor:.1f}"]
    for end, size in zip(places[1:], sizes, strict=True):
        path.append(f"V{floor - size * scale:.1f}H{end:.1f}")
    return "".join([*path, f"V{floor:.1f}Z"])


def _limit(svg: ET.Element, one: Trial, right: int, y: float | None) -> None:
    """Draw the card's limit, or say that it lies far above."""
    text = f"{phrases.name(one.card)} has {phrases.available(one.total_bytes)}"
    if y is None:
        write(svg, right - 4, _TOP - 7, f"{text}, far above", css="card-label", anchor="end")
        return
    add(svg, "path", {"d": f"M{_LEFT} {y:.1f}H{right}", "css": "card"})
    write(svg, right - 4, y - 5, text, css="card-label", anchor="end")


def _peak(svg: ET.Element, one: Trial, live: Moment, at: tuple[float, float], width: int) -> None:
    x, y = at
    add(svg, "circle", {"cx": x, "cy": y, "r": 4, "css": "dot"})
    ended = one.outcome is TrialOutcome.OUT_OF_MEMORY
    text = f"{'ended at' if ended else 'peak'} {phrases.need(live.allocated_bytes)}"
    anchor = "end" if x > width * 0.6 else "start"
    write(svg, x + (-8 if anchor == "end" else 8), y + 16, text, css="dot-label", anchor=anchor)


def _stretches(moments: Sequence[Moment]) -> list[tuple[str, int, int]]:
    """Return which line ran from which moment to which; nothing where they change all the time."""
    found, at = [], 0
    for name, group in groupby(moments, key=_line):
        count = len(list(group))
        found.append((name, at, at + count))
        at += count
    return found if len(found) <= _MOST_STRETCHES else []


def _line(moment: Moment) -> str:
    place = moment.place
    return "" if place is None else f"{clean(place.file, 200)}:{place.line}"


def _strip(
    svg: ET.Element,
    stretches: Sequence[tuple[str, int, int]],
    moments: Sequence[Moment],
    places: Sequence[float],
    top: int,
) -> None:
    """Draw below the axis which line of the program ran."""
    for name, first, end in stretches:
        if not name:
            continue
        left, width = places[first], places[end] - places[first]
        cell = add(svg, "g", {})
        place = moments[first].place
        inside = "" if place is None else f" ({clean(place.function, 80)})"
        ET.SubElement(cell, "title").text = f"{name}{inside}"
        shape: dict[str, float | str] = {"x": left + 0.5, "y": top, "width": max(width - 1, 0.5)}
        add(cell, "rect", {**shape, "height": _STRIP - 2, "rx": 2, "css": "strip-phase"})
        label = shorten(name.rpartition("/")[2], width - 6)
        if label:
            write(cell, left + width / 2, top + 15, label, css="strip-label", anchor="middle")


def draw_both(identity: str, one: Trial) -> str:
    """Return the picture twice, for wide and for narrow screens."""
    return draw_trial(f"{identity}-", one) + draw_trial(f"{identity}-narrow-", one, NARROW)
