"""What was found of an installation, in every format."""

from __future__ import annotations

from collections.abc import Sequence

from vramplan.probe.finding import Finding, State
from vramplan.quick_typing import TYPE_CHECKING
from vramplan.report.look import Look

if TYPE_CHECKING:
    from vramplan.report.sheet import Sheet


def render(findings: Sequence[Finding], look: Look) -> str:
    """Return the findings as they are to look."""
    if look.format == "json":
        from vramplan.report.serial import to_json

        rows = [
            {"thing": finding.thing, "state": finding.state.value, "detail": finding.detail}
            for finding in findings
        ]
        return to_json(look.command, {"findings": [dict(row) for row in rows]})
    from vramplan.report.sheet import draw_sheet, mark_sheet

    sheet = _sheet(findings)
    return look.draw(
        {
            "table": lambda: draw_sheet(sheet, look.colour, look.width),
            "markdown": lambda: mark_sheet(sheet),
        }
    )


def _sheet(findings: Sequence[Finding]) -> Sheet:
    from vramplan.report.colour import Tone
    from vramplan.report.rows import cell, table
    from vramplan.report.sheet import Sheet
    from vramplan.report.text import clean

    looks = {
        State.OK: ("✓ ok", Tone.FITS),
        State.NOTE: ("~ note", Tone.TIGHT),
        State.BROKEN: ("✗ broken", Tone.OOM),
    }
    rows = (
        (
            cell(clean(finding.thing, 80)),
            cell(looks[finding.state][0], tone=looks[finding.state][1]),
            cell(clean(finding.detail)),
        )
        for finding in findings
    )
    return Sheet(tables=[("", table("what, state, detail", rows))])
