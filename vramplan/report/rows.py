"""A table as data: what every format draws in its own way."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from vramplan.quick_dataclass import dataclass
from vramplan.report.colour import Tone
from vramplan.report.phrases import NOTHING


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One cell: its text, and a second text of less weight that may stand behind or below it.

    `joint` is how the detail is joined to the text when it stands behind it. `below` is drawn below
    both in a terminal where cells are stacked, and nowhere else.
    """

    text: str
    detail: str = ""
    tone: Tone = Tone.PLAIN
    joint: str = "({})"
    below: str = ""

    @property
    def behind(self) -> str:
        """The detail as it stands behind the text, or nothing."""
        return self.joint.format(self.detail) if self.detail else ""

    @property
    def inline(self) -> str:
        """Text and detail on one line."""
        return f"{self.text} {self.behind}".strip()


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """A column's header, and whether it holds figures or identifiers."""

    header: str
    is_figure: bool = False
    is_name: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """Columns and rows of cells; `totals` of the last rows are sums of those above."""

    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]
    totals: int = 0

    def __post_init__(self) -> None:
        if any(len(row) != len(self.columns) for row in self.rows):
            raise ValueError("a row has another number of cells than the table has columns")


@dataclass(frozen=True, slots=True, kw_only=True)
class NotedTable:
    """A table whose cells point at numbered footnotes (``[1]``), and these notes in order."""

    table: Table
    notes: tuple[str, ...]


def cell(text: str, detail: str = "", tone: Tone = Tone.PLAIN, joint: str = "({})") -> Cell:
    """Return a cell."""
    return Cell(text=text, detail=detail, tone=tone, joint=joint)


def columns(headers: str) -> tuple[Column, ...]:
    """Return columns from headers with a comma between: ``name!`` is a name, ``size#`` a figure."""
    return tuple(
        Column(header=word.strip(" !#"), is_figure="#" in word, is_name="!" in word)
        for word in headers.split(",")
    )


def table(headers: str, rows: Iterable[Sequence[Cell]], *, totals: int = 0) -> Table:
    """Return a table whose `headers` are written as `columns` reads them."""
    return Table(columns=columns(headers), rows=tuple(tuple(row) for row in rows), totals=totals)


def without_empty(full: Table, *optional: str) -> Table:
    """Return `full` less those of the `optional` columns that have nothing to say."""
    keep = [
        index
        for index, column in enumerate(full.columns)
        if column.header not in optional
        or any(row[index].text not in ("", NOTHING) for row in full.rows)
    ]
    return Table(
        columns=tuple(full.columns[index] for index in keep),
        rows=tuple(tuple(row[index] for index in keep) for row in full.rows),
        totals=full.totals,
    )


def without(full: Table, *headers: str) -> Table:
    """Return `full` less the columns with these headers."""
    keep = [index for index, column in enumerate(full.columns) if column.header not in headers]
    return Table(
        columns=tuple(full.columns[index] for index in keep),
        rows=tuple(tuple(row[index] for index in keep) for row in full.rows),
        totals=full.totals,
    )


class Footnotes:
    """Sources in the order they are first named, each once."""

    def __init__(self) -> None:
        self._notes: list[str] = []

    def number(self, note: str) -> str:
        """Return the mark of `note` (``[2]``), a new one if it was not named before."""
        if not note:
            return ""
        if note not in self._notes:
            self._notes.append(note)
        return f"[{self._notes.index(note) + 1}]"

    @property
    def notes(self) -> tuple[str, ...]:
        """The notes so far, in order."""
        return tuple(self._notes)
