"""Bars that are as wide as there is room: SVG in per cent, so that a narrow page needs no other."""

from __future__ import annotations

from collections.abc import Sequence
from xml.etree import ElementTree as ET

from vramplan.model import Estimate, Line
from vramplan.quick_dataclass import dataclass
from vramplan.report import phrases
from vramplan.report.budget import peak_lines, segments
from vramplan.report.colour import LINE_TONES, Tone
from vramplan.report.paint import paint
from vramplan.report.svg import add, finish
from vramplan.units import MIB

_HEIGHT = 16
#: a piece thinner than this could not be seen: per cent of a bar
_THINNEST = 0.4
#: what no component has: the process as a whole
WHOLE = "the process itself"
SMALL = "parts below 1 MiB"


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """A part of a bar."""

    label: str
    tone: Tone
    size_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One component's bar at the peak, and what it is made of."""

    name: str
    pieces: tuple[Piece, ...]

    @property
    def size_bytes(self) -> int:
        """What the component has on the card at the peak."""
        return sum(piece.size_bytes for piece in self.pieces)

    @property
    def sizes(self) -> dict[str, int]:
        """What it is made of, pieces of one label together."""
        found: dict[str, int] = {}
        for piece in self.pieces:
            found[piece.label] = found.get(piece.label, 0) + piece.size_bytes
        return found


def rows_of(estimate: Estimate) -> tuple[Row, ...]:
    """Return a row for each component that has something on the card at the peak, then the rest.

    They add up to the peak: what the lines leave of it is in the last row, and components of less
    than 1 MiB share one.
    """
    held: dict[str, list[Piece]] = {one.name: [] for one in estimate.components}
    rest: list[Piece] = []
    for line in peak_lines(estimate):
        if line.band.expected_bytes > 0 and not line.device.is_host:
            (rest if line.component is None else held.setdefault(line.component, [])).append(
                _piece(line)
            )
    known = sum(piece.size_bytes for pieces in (rest, *held.values()) for piece in pieces)
    left = estimate.peak.device.expected_bytes - known
    if left > MIB:
        rest.append(Piece(label="not itemised", tone=Tone.OTHER, size_bytes=left))
    rows = [Row(name=phrases.name(name), pieces=tuple(held[name])) for name in held if held[name]]
    small = [row for row in rows if row.size_bytes < MIB]
    if len(small) > 1:
        rows = [row for row in rows if row not in small]
        rows.append(Row(name=SMALL, pieces=tuple(piece for row in small for piece in row.pieces)))
    return (*rows, Row(name=WHOLE, pieces=tuple(rest))) if rest else tuple(rows)


def _piece(line: Line) -> Piece:
    return Piece(
        label=phrases.name(line.name),
        tone=LINE_TONES[line.kind],
        size_bytes=line.band.expected_bytes,
    )


def peak_pieces(estimate: Estimate) -> tuple[Piece, ...]:
    """Return the pieces of the whole peak, each kind together, in the order they first appear."""
    sizes: dict[Tone, int] = {}
    for part in segments(estimate):
        sizes[part.kind] = sizes.get(part.kind, 0) + part.size_bytes
    return tuple(
        Piece(label=tone.value, tone=tone, size_bytes=size) for tone, size in sizes.items()
    )


def draw_bar(pieces: Sequence[Piece], whole_bytes: int, *, limit_bytes: int | None = None) -> str:
    """Return a bar of pieces side by side, of a whole; `limit_bytes` is marked across it.

    It is hidden from who cannot see it: the same sizes stand beside it in words.
    """
    whole = max(whole_bytes, 1)
    svg = ET.Element(
        "svg",
        {
            "xmlns": "http://www.w3.org/2000/svg",
            "class": "bar",
            "viewBox": f"0 0 100 {_HEIGHT}",
            "preserveAspectRatio": "none",
            "width": "100%",
            "height": str(_HEIGHT),
            "aria-hidden": "true",
        },
    )
    add(svg, "rect", {"width": "100", "height": _HEIGHT, "css": "rail"})
    at = 0.0
    for piece in pieces:
        width = 100 * piece.size_bytes / whole
        shape: dict[str, float | str] = {"x": f"{at:.3f}", "height": _HEIGHT}
        shape |= {"width": f"{max(width, _THINNEST):.3f}", "css": f"fill-{piece.tone}"}
        part = add(svg, "rect", shape)
        ET.SubElement(part, "title").text = f"{piece.label}: {phrases.need(piece.size_bytes)}"
        at += width
    if limit_bytes is not None:
        place = min(max(100 * limit_bytes / whole, 0), 100)
        shape = {"x": f"{place - 0.25:.3f}", "width": "0.5", "height": _HEIGHT, "css": "limit-bar"}
        add(svg, "rect", {**shape, "fill": "currentColor"})
    return finish(paint(svg))
