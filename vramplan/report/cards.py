"""Cards, and what a class or a size is judged at, in every format."""

from __future__ import annotations

from collections.abc import Sequence

from vramplan.model import Card
from vramplan.quick_typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vramplan.report.look import Look


def render(cards: Sequence[Card], judged: Sequence[Card], lines: Sequence[str], look: Look) -> str:
    """Return the cards under `lines`; `judged` are those that a class or a size stands for."""
    if look.format == "json":
        from vramplan.report.serial import cards_result, to_json

        result = cards_result(cards)
        result["judged_as"] = cards_result(judged)["cards"] if judged else None
        return to_json(look.command, result)
    from vramplan.report.catalog_rows import card_table
    from vramplan.report.sheet import Sheet, render_sheet

    tables = [("", card_table(cards))] if cards else []
    return render_sheet(Sheet(lines=lines, tables=tables), look)
