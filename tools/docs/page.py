"""What the page generators share: a page is written by hand above a marker, by a script below."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).parents[2]

#: signs that mean something to Markdown
_MEANINGFUL = re.compile(r"([\\*<>\[\]{}|#$]|(?<!\w)_|_(?!\w))")


def replace_generated(page: str, module: str, text: str) -> str:
    """Return `page` with all that follows the marker line of `module` replaced by `text`.

    Raises ValueError where the marker line is missing.
    """
    marker = f"% What follows is written by `python -m {module}`; do not edit it here.\n"
    by_hand, found, _ = page.partition(marker)
    if not found:
        raise ValueError(f"the page has lost its marker line: {marker}")
    return f"{by_hand}{marker}\n{text.rstrip()}\n"


def escape(text: str) -> str:
    """Return plain text as Markdown that says the same; `code` between backticks is kept.

    An underscore inside a word means nothing to Markdown and stays as it is.
    """
    pieces = re.split(r"(`[^`]*`)", " ".join(text.split()))
    return "".join(
        piece
        if piece.startswith("`")
        else re.sub(r"([\\*<>\[\]{}|#$]|(?<!\w)_|_(?!\w))", r"\\\1", piece)
        for piece in pieces
    )


def run_generator(path: Path, module: str, render: Callable[[], str]) -> int:
    """Rewrite a page; with --check on the command line only say (exit 1) that it is out of date."""
    old = path.read_text(encoding="utf-8")
    new = replace_generated(old, module, render())
    if "--check" in sys.argv[1:]:
        if new != old:
            print(f"{path.name} is out of date: run python -m {module}", file=sys.stderr)
        return int(new != old)
    path.write_text(new, encoding="utf-8")
    return 0
