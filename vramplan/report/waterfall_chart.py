"""The waterfall drawn in text: each step where the one before it ends."""

from __future__ import annotations

from vramplan.compare.waterfall import Step, Waterfall
from vramplan.report import phrases
from vramplan.report.colour import LINE_TONES, Tone, paint
from vramplan.report.text import fit, width_of

_NARROWEST = 16
_GAP = "  "


def step_tone(step: Step) -> Tone:
    """Return the tone of what a step is made of."""
    return Tone.OTHER if step.kind is None else LINE_TONES[step.kind]


def draw_waterfall(waterfall: Waterfall, *, width: int, colour: bool) -> list[str]:
    """Return a line for each step, for what is unaccounted and for the figure that is shown.

    A step that is not empty is at least one cell long; one that takes away ends where it began.
    """
    steps = [(step.name, step.bytes, step_tone(step)) for step in waterfall.steps]
    steps.append(("unaccounted", waterfall.unaccounted_bytes, Tone.OTHER))
    labels = [name for name, _, _ in steps] + [f"{waterfall.shown_by} shows"]
    sizes = [phrases.nearest(size) for _, size, _ in steps]
    sizes.append(phrases.nearest(waterfall.shown_bytes))
    label_width = max(width_of(label) for label in labels)
    size_width = max(width_of(size) for size in sizes)
    room = max(_NARROWEST, width - label_width - size_width - 2 * len(_GAP))
    largest = max(waterfall.shown_bytes, waterfall.accounted_bytes, 1)
    drawn, at = [], 0
    for (name, size, tone), shown in zip(steps, sizes, strict=False):
        bar = _bar(at, at + size, largest, room)
        drawn.append(_line(name, bar, tone, shown, label_width, room, size_width, colour))
        at += size
    total = _bar(0, waterfall.shown_bytes, largest, room)
    last = _line(labels[-1], total, Tone.STRONG, sizes[-1], label_width, room, size_width, colour)
    return [*drawn, last]


def _line(
    label: str,
    bar: tuple[int, int],
    tone: Tone,
    size: str,
    label_width: int,
    room: int,
    size_width: int,
    colour: bool,
) -> str:
    first, cells = bar
    plot = " " * first + paint("█" * cells, tone, colour) + " " * (room - first - cells)
    return f"{fit(label, label_width)}{_GAP}{plot}{_GAP}{size:>{size_width}}"


def _bar(begin: int, end: int, largest: int, room: int) -> tuple[int, int]:
    """Return the first cell and the number of cells of a piece of the bar."""
    low, high = sorted((begin, end))
    first = max(0, min(room - 1, low * room // largest))
    last = max(first, min(room, -(-high * room // largest)))
    return first, max(1, last - first) if end != begin else 0
