"""A sheet: a heading, some lines and headed tables, for commands without a report of their own."""

from __future__ import annotations

from collections.abc import Sequence

from vramplan.quick_dataclass import dataclass
from vramplan.report import markdown
from vramplan.report.colour import Tone, paint
from vramplan.report.grid import draw_table
from vramplan.report.look import Look
from vramplan.report.rows import Table
from vramplan.report.text import clean, wrap

#: as much of a line as is shown: a source may name several addresses
_LINE_LIMIT = 2000


@dataclass(frozen=True, slots=True, kw_only=True)
class Sheet:
    """What is shown, top to bottom; a table's heading may be empty."""

    heading: str = ""
    lines: Sequence[str] = ()
    tables: Sequence[tuple[str, Table]] = ()


def draw_sheet(sheet: Sheet, colour: bool, width: int) -> str:
    """Return the sheet for a terminal."""
    parts: list[str] = []
    if sheet.heading:
        head = wrap(clean(sheet.heading), width)
        parts.append("\n".join(paint(line, Tone.STRONG, colour) for line in head))
    parts += [
        "\n".join(wrap(clean(line, _LINE_LIMIT), width)) for line in sheet.lines if line.strip()
    ]
    for heading, table in sheet.tables:
        head = [paint(heading, Tone.STRONG, colour)] if heading else []
        stacked = any(cell.detail for row in table.rows for cell in row)
        drawn = draw_table(table, width=width, colour=colour, stacked=stacked)
        parts.append("\n".join([*([""] if parts else []), *head, *drawn]))
    return "\n".join(parts) + "\n"


def mark_sheet(sheet: Sheet) -> str:
    """Return the sheet as Markdown."""
    parts: list[str] = []
    if sheet.heading:
        parts.append(f"## {markdown.escape(clean(sheet.heading))}")
    parts += [markdown.escape(clean(line, _LINE_LIMIT)) for line in sheet.lines if line.strip()]
    for heading, table in sheet.tables:
        parts += [f"### {heading}"] if heading else []
        parts.append(markdown.render_table(table))
    return "\n\n".join(parts) + "\n"


def render_sheet(sheet: Sheet, look: Look) -> str:
    """Return a sheet for a terminal or as Markdown."""
    if look.format == "markdown":
        return mark_sheet(sheet)
    return draw_sheet(sheet, look.colour, look.width)
