"""How a result is to look: in which format, in colour or not, how wide."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from vramplan.quick_dataclass import dataclass

#: how wide a line is where there is no terminal to ask
FILE_WIDTH = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """What every subject of `report` is told: `render(result, look)` returns the text.

    `format` is table, json, markdown or html; `colour` and `width` (in columns) concern the table,
    `command` names the one that asked, for the head of its JSON.
    """

    format: str
    command: str = ""
    colour: bool = False
    width: int = FILE_WIDTH

    def draw(self, drawings: Mapping[str, Callable[[], str]]) -> str:
        """Return the text of this format's drawing; none of the others is made."""
        return drawings[self.format]()
