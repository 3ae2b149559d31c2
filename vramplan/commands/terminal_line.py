"""The line of a terminal that is written over again and again while work goes on."""

from __future__ import annotations

import sys

from vramplan.commands.streams import LINE, tell


def rewrite(text: str) -> None:
    """Write over the line; what is told next takes its place, and so does nothing."""
    from vramplan.report.text import clean, for_encoding

    if text or LINE.stands:
        LINE.stands = True
        tell(for_encoding(clean(text, 79), sys.stderr.encoding))
        LINE.stands = bool(text)
