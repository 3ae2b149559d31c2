"""The catalogue: its pipelines, one of them whole, and what is wrong in a file, in every format."""

from __future__ import annotations

from collections.abc import Sequence

from vramplan.errors import CatalogError
from vramplan.model import Pipeline
from vramplan.quick_typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vramplan.report.look import Look
    from vramplan.report.serial import Json


def render_list(pipelines: Sequence[Pipeline], look: Look) -> str:
    """Return a row a pipeline."""

    def as_table() -> str:
        from vramplan.report.tables import render_catalog

        return render_catalog(pipelines, colour=look.colour, width=look.width)

    def as_json() -> str:
        from vramplan.report.serial import catalog_result, to_json

        return to_json("catalog list", catalog_result(pipelines))

    def as_markdown() -> str:
        from vramplan.report.markdown import render_catalog

        return render_catalog(pipelines)

    return look.draw({"table": as_table, "json": as_json, "markdown": as_markdown})


def render_entry(pipeline: Pipeline, look: Look) -> str:
    """Return one pipeline with its settings and its parts."""
    from vramplan.report.catalog_entry import entry_result, entry_sheet
    from vramplan.report.serial import to_json
    from vramplan.report.sheet import render_sheet

    if look.format == "json":
        return to_json("catalog show", entry_result(pipeline))
    return render_sheet(entry_sheet(pipeline), look)


def render_errors(errors: Sequence[CatalogError], look: Look) -> str:
    """Return a line a mistake."""
    from vramplan.report.text import clean

    def as_table() -> str:
        return "".join(f"{clean(str(error))}\n" for error in errors)

    def as_json() -> str:
        from vramplan.report.serial import to_json

        listed: list[Json] = [{"message": str(error), "hint": error.hint} for error in errors]
        return to_json("catalog validate", {"errors": listed})

    def as_markdown() -> str:
        from vramplan.report.markdown import escape

        return "".join(f"- {escape(clean(str(error)))}\n" for error in errors)

    return look.draw({"table": as_table, "json": as_json, "markdown": as_markdown})
