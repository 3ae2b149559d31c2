"""A terminal drawn from what a command really printed: its words, its colours, its columns."""

from __future__ import annotations

import io
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from unittest import mock
from xml.etree import ElementTree as ET

from tools.docs.picture_parts import MONO
from vramplan.report.svg import add, finish, start

COLUMNS = 100
_CELL = 8.4  # width of a letter
_ROW = 19
_MARGIN = 22

#: SGR codes that `vramplan.report.colour` uses, as classes
_CLASSES = {
    "1": "strong", "2": "dim", "32": "green", "33": "yellow", "34": "blue", "35": "purple",
    "36": "cyan", "90": "dim", "1;31": "red",
}  # fmt: skip
_COLOURS = {
    "ground": ("#fbfbfa", "#10141a"),
    "edge": ("#d5dae1", "#2c343f"),
    "plain": ("#24292f", "#d6dde5"),
    "strong": ("#0b0f14", "#ffffff"),
    "dim": ("#6a7480", "#8b96a3"),
    "green": ("#0a6b45", "#6fdcac"),
    "yellow": ("#7a5600", "#f2cd6b"),
    "purple": ("#6f3c9b", "#d3b1f2"),
    "blue": ("#0b5cad", "#7cc0f5"),
    "cyan": ("#0d6572", "#6fd0dc"),
    "red": ("#a3152b", "#ff8f9c"),
    "prompt": ("#0b5cad", "#7cc0f5"),
}
_ESCAPE = re.compile(r"\x1b\[([0-9;]*)m")


class _Terminal(io.StringIO):
    """What `vramplan` takes for a terminal."""

    def isatty(self) -> bool:
        return True


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """Letters of one style, and the column where they begin."""

    column: int
    text: str
    style: str


def capture(words: Sequence[str]) -> list[str]:
    """Return the lines that ``vramplan WORDS`` prints on a terminal, colours included.

    Raises RuntimeError where it ends with an error: exit 1 is an answer (something does not fit).
    """
    from vramplan.cli import main

    clean = {name: value for name, value in os.environ.items() if name != "VRAMPLAN_CATALOG"}
    clean |= {"COLUMNS": str(COLUMNS), "LINES": "50", "TERM": "xterm", "NO_COLOR": ""}
    screen = _Terminal()
    with mock.patch.dict(os.environ, clean, clear=True), redirect_stdout(screen):
        code = main(list(words))
    if code not in (0, 1):
        raise RuntimeError(f"vramplan {' '.join(words)} ended with {code}")
    return screen.getvalue().splitlines()


def plain(line: str) -> str:
    """Return a line without its colours."""
    return _ESCAPE.sub("", line)


def pieces(line: str) -> Iterator[Piece]:
    """Yield a line's words; two blanks part them, so that each keeps its column in any font."""
    column, style = 0, "plain"
    for index, part in enumerate(_ESCAPE.split(line)):
        if index % 2:
            style = _CLASSES.get(part, "plain")
            continue
        for found in re.finditer(r"\S+(?: \S+)*", part):
            yield Piece(column=column + found.start(), text=found.group(), style=style)
        column += len(part)


def draw(identity: str, words: Sequence[str], lines: Sequence[str], about: str) -> str:
    """Return the picture of a terminal in which ``vramplan WORDS`` has printed `lines`.

    `about` and the lines' own words stand for it where it cannot be seen.
    """
    command = f"vramplan {' '.join(words)}"
    said = " ".join(word for line in lines for word in plain(line).split() if set(word) != {"─"})
    width = round(2 * _MARGIN + COLUMNS * _CELL)
    height = 2 * _MARGIN + _ROW * (len(lines) + 2) - 6
    svg = start(identity, width, height, f"$ {command}", f"{about}: {said}")
    svg.set("width", str(width))
    svg.set("height", str(height))
    ET.SubElement(svg, "style").text = _style_sheet()
    shape = {"x": 0.5, "y": 0.5, "width": width - 1, "height": height - 1, "rx": 10}
    add(svg, "rect", {**shape, "css": "ground"})
    _write(svg, 0, Piece(column=0, text="$", style="prompt"))
    _write(svg, 0, Piece(column=2, text=command, style="strong"))
    for row, line in enumerate(lines, start=2):
        for piece in pieces(line):
            _write(svg, row, piece)
    ET.indent(svg, space=" ")
    return finish(svg) + "\n"


def _write(svg: ET.Element, row: int, piece: Piece) -> None:
    """Write letters onto the grid; textLength keeps the columns, whatever the font."""
    shape = {
        "x": _MARGIN + piece.column * _CELL,
        "y": _MARGIN + 12 + row * _ROW,
        "css": piece.style,
        "textLength": len(piece.text) * _CELL,
        "lengthAdjust": "spacingAndGlyphs",
    }
    add(svg, "text", shape).text = piece.text


def _style_sheet() -> str:
    letters = f"text{{font-family:{MONO};font-size:14px}}.strong,.red{{font-weight:700}}"
    light, dark = (
        "".join(
            f".{name}{{fill:{pair[side]}}}" for name, pair in _COLOURS.items() if name != "edge"
        )
        + f".ground{{stroke:{_COLOURS['edge'][side]}}}"
        for side in (0, 1)
    )
    return f"{letters}{light}@media (prefers-color-scheme:dark){{{dark}}}"
