"""The waterfall as a picture: one bar a step, from the weights down to the figure that is shown."""

from __future__ import annotations

from vramplan.compare.waterfall import Basis, Waterfall
from vramplan.report import phrases
from vramplan.report.colour import Tone
from vramplan.report.paint import paint
from vramplan.report.svg import WIDTH, add, finish, start, write
from vramplan.report.waterfall_chart import step_tone

_ROW = 26
_BAR = 16
_LABELS = 150
_SIZES = 190


def draw_waterfall(identity: str, waterfall: Waterfall) -> str:
    """Return the picture; a step that only the estimate knows has a pale bar."""
    steps = [(step.name, step.bytes, step_tone(step), step.basis) for step in waterfall.steps]
    steps.append(("unaccounted", waterfall.unaccounted_bytes, Tone.OTHER, Basis.DIFFERENCE))
    height = _ROW * (len(steps) + 1) + 12
    summary = ". ".join(f"{name}: {phrases.nearest(size)}" for name, size, _, _ in steps)
    title = f"From the weights to what {waterfall.shown_by} shows"
    svg = start(identity, WIDTH, height, title, summary)
    room = WIDTH - _LABELS - _SIZES
    largest = max(waterfall.shown_bytes, waterfall.accounted_bytes, 1)
    at = 0
    for number, (name, size, tone, basis) in enumerate(steps):
        top = number * _ROW + 6
        begin, end = sorted((at, at + size))
        x = _LABELS + max(0, begin) / largest * room
        width = max((end - begin) / largest * room, 1.5 if size else 0)
        write(svg, _LABELS - 10, top + 13, name, css="label", anchor="end")
        css = f"fill-{tone}" + (" guessed" if basis is Basis.ESTIMATE else "")
        bar: dict[str, float | str] = {
            "x": x, "y": top, "width": width, "height": _BAR, "rx": 2, "css": css,
        }  # fmt: skip
        add(svg, "rect", bar)
        write(svg, x + width + 8, top + 13, phrases.nearest(size), css="figure")
        at += size
    top = len(steps) * _ROW + 6
    shown = waterfall.shown_bytes / largest * room
    write(svg, _LABELS - 10, top + 13, f"{waterfall.shown_by} shows", css="label", anchor="end")
    total: dict[str, float | str] = {
        "x": _LABELS, "y": top, "width": shown, "height": _BAR, "rx": 2, "css": "total-bar",
    }  # fmt: skip
    add(svg, "rect", total)
    write(svg, _LABELS + shown + 8, top + 13, phrases.nearest(waterfall.shown_bytes), css="figure")
    return finish(paint(svg))
