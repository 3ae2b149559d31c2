"""A budget drawn in text: each piece where the one before it ends, cards as vertical lines."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from vramplan.model import Estimate
from vramplan.report import phrases
from vramplan.report.budget import Line, segments
from vramplan.report.colour import Tone, paint
from vramplan.report.text import cut, width_of

_LABEL_WIDTH = 34
_SIZE_WIDTH = 10
_NARROWEST_PLOT = 16


def draw_budget(
    estimate: Estimate, cards: Sequence[Line], *, width: int, colour: bool
) -> list[str]:
    """Return the lines of the stacked budget at its peak against what `cards` offer.

    A piece that is not empty is at least one cell long, so its place is exact to a cell. Below it
    stand the bands of what is in use and of what is needed.
    """
    pieces = segments(estimate)
    bands = (
        ("in use, low to high", estimate.peak.device),
        ("need, low to high", estimate.need.band),
    )
    offers = [card.budget_bytes for card in cards]
    largest = max(
        sum(piece.size_bytes for piece in pieces),
        *(band.high_bytes for _, band in bands),
        *offers,
        1,
    )
    labels = [piece.label for piece in pieces] + [label for label, _ in bands]
    label_width = min(_LABEL_WIDTH, width // 3, max(width_of(label) for label in labels))
    plot = max(_NARROWEST_PLOT, width - label_width - _SIZE_WIDTH - 4)

    def column(size_bytes: int) -> int:
        return max(0, min(plot - 1, size_bytes * plot // largest))

    marks = {column(offer) for offer in offers}
    drawn, start = [], 0
    for piece in pieces:
        end = start + piece.size_bytes
        bar = _bar(
            plot, column(start), max(column(end - 1), column(start)), marks, piece.kind, colour
        )
        drawn.append(_row(piece.label, label_width, bar, phrases.need(piece.size_bytes)))
        start = end
    for label, band in bands:
        whisker = _whisker(plot, column(band.low_bytes), column(band.high_bytes), marks, colour)
        drawn.append(_row(label, label_width, whisker, phrases.need(band.expected_bytes)))
    indent = " " * (label_width + 2)
    return drawn + [indent + line for line in _axis(cards, plot, column, colour)]


def _row(label: str, label_width: int, plot: str, size: str) -> str:
    shown = cut(label, label_width)
    return f"{shown}{' ' * (label_width - width_of(shown))}  {plot}  {size:>{_SIZE_WIDTH}}"


def _bar(plot: int, first: int, last: int, marks: set[int], kind: Tone, colour: bool) -> str:
    """Return one row of the plot: blank, the piece, blank, with the cards' lines on top."""
    before = _blank(0, first, marks, colour)
    piece = "".join("│" if cell in marks else "█" for cell in range(first, last + 1))
    return before + paint(piece, kind, colour) + _blank(last + 1, plot, marks, colour)


def _whisker(plot: int, first: int, last: int, marks: set[int], colour: bool) -> str:
    if first == last:
        piece = "┼"
    else:
        inner = "".join("┼" if cell in marks else "─" for cell in range(first + 1, last))
        piece = f"├{inner}┤"
    before = _blank(0, first, marks, colour)
    return before + piece + _blank(last + 1, plot, marks, colour)


def _blank(first: int, end: int, marks: set[int], colour: bool) -> str:
    return "".join(
        paint("│", Tone.DIM, colour) if cell in marks else " " for cell in range(first, end)
    )


def _axis(
    cards: Sequence[Line], plot: int, column: Callable[[int], int], colour: bool
) -> list[str]:
    """Return the axis and, below it, one line per card that says what the card offers."""
    places = [(column(card.budget_bytes), card) for card in cards]
    marks = {place for place, _ in places}
    axis = "".join("┴" if cell in marks else "─" for cell in range(plot))
    drawn = [paint(axis, Tone.DIM, colour)]
    for place, card in places:
        text = f"{card.label}: {phrases.available(card.budget_bytes)}"
        fits_behind = place + 2 + width_of(text) <= plot
        drawn.append(" " * place + f"↑ {text}" if fits_behind else f"{text} ↑".rjust(place + 1))
    return drawn
