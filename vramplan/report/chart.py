"""A budget drawn in text: each piece where the one before it ends, cards as vertical lines."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import accumulate

from vramplan.model import Band, Estimate
from vramplan.quick_dataclass import dataclass
from vramplan.report import phrases
from vramplan.report.budget import Offer, segments
from vramplan.report.colour import Tone, paint
from vramplan.report.text import cut, fit, width_of

_WIDEST_LABEL = 34
_NARROWEST_PLOT = 16
_GAP = "  "


@dataclass(frozen=True, slots=True, kw_only=True)
class Plot:
    """Where bytes are drawn: `width` cells are `largest_bytes`, `marks` are the cards' cells."""

    width: int
    largest_bytes: int
    marks: frozenset[int]
    colour: bool


def draw_budget(
    estimate: Estimate, cards: Sequence[Offer], *, width: int, colour: bool
) -> list[str]:
    """Return the lines of the stacked budget at its peak against what `cards` offer.

    A piece that is not empty is at least one cell long, so its place is exact to a cell. Below it
    stand the bands of what is in use and of what is needed.
    """
    pieces = segments(estimate)
    bands = {"in use, low to high": estimate.peak.device, "need, low to high": estimate.need.band}
    labels = [*(piece.label for piece in pieces), *bands]
    needs = [piece.size_bytes for piece in pieces]
    sizes = [phrases.need(size) for size in (*needs, *(b.expected_bytes for b in bands.values()))]
    label_width = min(_WIDEST_LABEL, width // 3, max(width_of(label) for label in labels))
    size_width = max(len(size) for size in sizes)
    room = width - label_width - size_width - 2 * len(_GAP)
    highest = max(sum(needs), *(band.high_bytes for band in bands.values()))
    plot = _plot(max(_NARROWEST_PLOT, room), highest, cards, colour)
    ends = list(accumulate(needs))
    bars = [
        _bar(plot, end - piece.size_bytes, end, piece.kind)
        for piece, end in zip(pieces, ends, strict=True)
    ]
    bars += [_whisker(plot, band) for band in bands.values()]
    rows = [
        f"{fit(label, label_width)}{_GAP}{bar}{_GAP}{size:>{size_width}}"
        for label, bar, size in zip(labels, bars, sizes, strict=True)
    ]
    indent = " " * label_width + _GAP
    return rows + [indent + line for line in _axis(plot, cards)]


def _plot(width: int, highest_bytes: int, cards: Sequence[Offer], colour: bool) -> Plot:
    offers = [card.budget_bytes for card in cards]
    largest = max(highest_bytes, *offers, 1)
    bare = Plot(width=width, largest_bytes=largest, marks=frozenset(), colour=colour)
    marks = frozenset(_column(bare, offer) for offer in offers)
    return Plot(width=width, largest_bytes=largest, marks=marks, colour=colour)


def _column(plot: Plot, size_bytes: int) -> int:
    return max(0, min(plot.width - 1, size_bytes * plot.width // plot.largest_bytes))


def _bar(plot: Plot, start_bytes: int, end_bytes: int, kind: Tone) -> str:
    """Return one row of the plot: blank, the piece, blank, with the cards' lines on top."""
    first = _column(plot, start_bytes)
    last = max(first, _column(plot, end_bytes - 1))
    piece = "".join("│" if cell in plot.marks else "█" for cell in range(first, last + 1))
    return _between(plot, first, paint(piece, kind, plot.colour), last)


def _whisker(plot: Plot, band: Band) -> str:
    first, last = _column(plot, band.low_bytes), _column(plot, band.high_bytes)
    inner = "".join("┼" if cell in plot.marks else "─" for cell in range(first + 1, last))
    return _between(plot, first, "┼" if first == last else f"├{inner}┤", last)


def _between(plot: Plot, first: int, piece: str, last: int) -> str:
    def blank(cells: range) -> str:
        return "".join(
            paint("│", Tone.DIM, plot.colour) if cell in plot.marks else " " for cell in cells
        )

    return blank(range(first)) + piece + blank(range(last + 1, plot.width))


def _axis(plot: Plot, cards: Sequence[Offer]) -> Iterator[str]:
    """Yield the axis and, below it, one line per card that says what the card offers."""
    axis = "".join("┴" if cell in plot.marks else "─" for cell in range(plot.width))
    yield paint(axis, Tone.DIM, plot.colour)
    for card in cards:
        place = _column(plot, card.budget_bytes)
        offer = phrases.available(card.budget_bytes)
        room_behind = plot.width - place - 2
        text = f"{cut(card.label, max(place, room_behind) - len(offer) - 3)}: {offer}"
        is_behind = width_of(text) <= room_behind
        before = " " * max(0, place - 1 - width_of(text))
        yield " " * place + f"↑ {text}" if is_behind else f"{before}{text} ↑"
