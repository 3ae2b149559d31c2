"""A measured run that no estimate stands beside, in every format."""

from __future__ import annotations

from collections.abc import Sequence

from vramplan.measurement.run import Run
from vramplan.report import comparison_rows, phrases
from vramplan.report.look import Look
from vramplan.report.rows import Cell, Table, cell, table, without_empty
from vramplan.report.text import clean


def render(run: Run, look: Look, *, problem: str | None = None) -> str:
    """Return what was measured; `problem` says why there is no estimate beside it."""
    if look.format == "json":
        from vramplan.report.comparison_serial import run_result
        from vramplan.report.serial import to_json

        return to_json(look.command, run_result(run))
    if look.format == "html":
        from vramplan.report.comparison_html import render_run

        return render_run(run, tables_of(run), _notes(problem))
    from vramplan.report.sheet import Sheet, draw_sheet, mark_sheet

    sheet = Sheet(
        heading=f"{phrases.name(run.pipeline)}: measured",
        lines=[*comparison_rows.about(run), comparison_rows.outcome(run)[1], *_notes(problem)],
        tables=tables_of(run),
    )
    return look.draw(
        {
            "table": lambda: draw_sheet(sheet, look.colour, look.width),
            "markdown": lambda: mark_sheet(sheet),
        }
    )


def _notes(problem: str | None) -> list[str]:
    return [] if problem is None else [f"there is no estimate beside it: {clean(problem, 400)}"]


def tables_of(run: Run) -> list[tuple[str, Table]]:
    """Return the tables that have rows, with their headings."""
    found = [("phases", _phases(run)), ("the engine's buffers", _buffers(run))]
    return [(heading, one) for heading, one in found if one.rows]


def _phases(run: Run) -> Table:
    rows = [
        (
            cell(phrases.name(one.turn)),
            cell(phrases.name(one.phase)),
            cell(phrases.name(one.component)),
            *_sizes(
                one.torch.allocated_peak_bytes if one.torch else None,
                one.torch.reserved_peak_bytes if one.torch else None,
                one.process_peak_bytes,
                one.device_peak_bytes,
            ),
        )
        for one in run.stretches
    ]
    headers = "run, phase!, component!, allocated#, reserved#, NVML process#, NVML device#"
    return without_empty(
        table(headers, rows), "allocated", "reserved", "NVML process", "NVML device"
    )


def _buffers(run: Run) -> Table:
    rows = [
        (cell(clean(one.device, 40)), cell(clean(one.name, 40)), *_sizes(one.size_bytes))
        for one in run.buffers
    ]
    return table("device, buffer, size#", rows)


def _sizes(*sizes: int | None) -> Sequence[Cell]:
    return [cell(phrases.NOTHING if size is None else phrases.nearest(size)) for size in sizes]
