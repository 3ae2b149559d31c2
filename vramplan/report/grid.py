"""A table drawn for a terminal, fitted to its width."""

from __future__ import annotations

from collections.abc import Sequence

from vramplan.report.colour import Tone, paint
from vramplan.report.rows import Cell, Table
from vramplan.report.text import width_of, wrap

_GAP = 2
_NARROWEST = 8

#: a cell as the lines it takes, each with its tone
_Lines = list[tuple[str, Tone]]


def natural_width(table: Table, *, stacked: bool) -> int:
    """Return the cells of width that `table` takes when nothing is wrapped."""
    widths = _natural_widths(table, stacked)
    return sum(widths) + _GAP * (len(widths) - 1)


def draw_table(table: Table, *, width: int, colour: bool, stacked: bool = False) -> list[str]:
    """Return the lines of `table`: header, rule, rows, and a rule above totals.

    `stacked` puts a cell's detail below its text instead of behind it. Columns of words are wrapped
    until the table is no wider than `width`; figures never are, only what stands behind them.
    """
    widths = _fitted_widths(table, width, stacked)
    rule = [("─" * size, Tone.DIM) for size in widths]
    physical = [[(column.header, Tone.STRONG) for column in table.columns], rule]
    first_total = len(table.rows) - table.totals
    for index, row in enumerate(table.rows):
        if index == first_total > 0:
            physical.append(rule)
        physical.extend(_physical_rows(row, widths, stacked=stacked))
    figures = [column.is_figure for column in table.columns]
    return [_joined(cells, widths, figures, colour=colour) for cells in physical]


def _joined(cells: _Lines, widths: Sequence[int], figures: Sequence[bool], *, colour: bool) -> str:
    """Return cells side by side, as wide as a terminal shows them: figures right, words left."""
    drawn = []
    for (text, tone), width, is_figure in zip(cells, widths, figures, strict=True):
        blanks, painted = " " * (width - width_of(text)), paint(text, tone, colour)
        drawn.append(blanks + painted if is_figure else painted + blanks)
    return (" " * _GAP).join(drawn).rstrip()


def _natural_widths(table: Table, stacked: bool) -> list[int]:
    return [
        max(
            width_of(column.header),
            *(
                width_of(line)
                for row in table.rows
                for line, _ in _cell_lines(row[index], 10**6, stacked=stacked)
            ),
            0,
        )
        for index, column in enumerate(table.columns)
    ]


def _fitted_widths(table: Table, width: int, stacked: bool) -> list[int]:
    """Return column widths that sum to `width` where that can be, taken from the widest columns."""
    widths = _natural_widths(table, stacked)
    floors = [min(*pair) for pair in zip(_floors(table), widths, strict=True)]
    excess = sum(widths) + _GAP * (len(widths) - 1) - width
    while excess > 0:
        wide = [index for index, floor in enumerate(floors) if widths[index] > floor]
        if not wide:
            break
        widest = max(wide, key=lambda index: widths[index])
        # Down to the next widest at once: a note may be hundreds of cells wide.
        next_widest = max((widths[index] for index in wide if index != widest), default=0)
        step = max(1, widths[widest] - max(next_widest, floors[widest]))
        widths[widest] -= min(step, excess)
        excess -= min(step, excess)
    return widths


def _floors(table: Table) -> list[int]:
    """Return how narrow each column may get: a figure is never broken, words are."""
    return [
        max(
            width_of(column.header),
            *(width_of(row[index].text) if column.is_figure else _NARROWEST for row in table.rows),
            0,
        )
        for index, column in enumerate(table.columns)
    ]


def _cell_lines(cell: Cell, width: int, *, stacked: bool) -> _Lines:
    text = cell.text if stacked else cell.inline
    lines: _Lines = [(line, cell.tone) for line in wrap(text, width)]
    if stacked and cell.detail:
        lines += [(line, Tone.DIM) for line in wrap(cell.detail, width)]
    if stacked and cell.below:
        lines.append((cell.below, cell.tone))
    return lines


def _physical_rows(row: Sequence[Cell], widths: Sequence[int], *, stacked: bool) -> list[_Lines]:
    blocks = [
        _cell_lines(cell, width, stacked=stacked) for cell, width in zip(row, widths, strict=True)
    ]
    height = max(len(block) for block in blocks)
    return [
        [block[line] if line < len(block) else ("", Tone.PLAIN) for block in blocks]
        for line in range(height)
    ]
