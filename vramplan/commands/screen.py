"""The live view of cards on stderr: redrawn in place on a terminal, a line each elsewhere."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable

from vramplan.ask.watch import Watching
from vramplan.commands.streams import is_watched, tell
from vramplan.report.colour import wants_colour
from vramplan.report.text import for_encoding
from vramplan.report.watch_view import draw_live, plain_lines


def screen() -> Callable[[float, Watching], None]:
    """Return what shows one look at cards, so many seconds in."""
    stream = sys.stderr
    if not is_watched():
        return lambda at_s, watching: tell(
            "".join(
                f"{for_encoding(line, stream.encoding)}\n"
                for line in plain_lines(at_s, watching.cards)
            )
        )
    drawn = [0]

    def draw(_at_s: float, watching: Watching) -> None:
        columns, rows = shutil.get_terminal_size((80, 24))
        colour = wants_colour(stream, os.environ)
        lines = draw_live(watching.cards, colour=colour, width=columns - 1)[: rows - 1]
        up = f"\x1b[{drawn[0]}F\x1b[J" if drawn[0] else ""
        tell(up + "\n".join(lines) + "\n")
        drawn[0] = len(lines)

    return draw
