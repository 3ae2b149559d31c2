"""What people's tools put around a text that they paste, taken off again.

Mails and issues quote with ``>``, docker compose names the service before each line, web pages
escape, PowerShell writes UTF-16, terminals colour. What stands below is left as it is.
"""

from __future__ import annotations

import html
import re

_ESCAPE = re.compile(r"\x1b\[[0-9;?]{0,20}[A-Za-z]|\x1b\][^\x07\x1b]{0,200}(?:\x07|\x1b\\)")
_SPACES = str.maketrans(dict.fromkeys("\u00a0\u2007\u202f\u3000", " ") | {"\t": "    "})
_BARS = str.maketrans(dict.fromkeys("│┃║", "|") | dict.fromkeys("─━═", "-"))
#: what a terminal or a page would obey, and what is no text: controls but for the ends of lines,
#: marks of direction, halves of characters
_NOTHING = str.maketrans(
    dict.fromkeys(
        [chr(code) for code in (*range(9), *range(14, 32), *range(127, 160), 0x2060, 0xFEFF)]
        + [chr(code) for code in (*range(0x200B, 0x2010), *range(0x202A, 0x202F))]
        + [chr(code) for code in (*range(0x2066, 0x206A), *range(0xD800, 0xE000))]
    )
)
_QUOTES = (">", "//", "#", "*", ";")
#: smi-1  | the line
_SERVICE = re.compile(r"^[A-Za-z][\w.-]{0,60}\s{0,20}\| ?")
#: 2026-06-14T10:00:00.000Z, [2026-06-14 10:00:00], what some collectors add after them
_STAMP = re.compile(
    r"^\[?\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(?:[.,]\d{1,9})?(?:Z|[+-]\d\d:?\d\d)?\]?:? ?"
    r"(?:std(?:out|err) [FP] )?"
)
_MOST_QUOTES = 8


def decode_paste(data: bytes) -> str:
    """Return the text of a file, whatever its encoding: PowerShell's ``>`` writes UTF-16."""
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return data.decode("utf-16", errors="replace")
    if data[1:2] == b"\x00":
        return data.decode("utf-16-le", errors="replace")
    return data.decode("utf-8-sig", errors="replace")


def clean_paste(text: str) -> str:
    """Return `text` without quote marks, escapes and what else stands before its lines."""
    text = _ESCAPE.sub("", text) if "\x1b" in text else text
    text = text.translate(_NOTHING).translate(_SPACES).translate(_BARS)
    if text.count("\\n") > 4 * (text.count("\n") + 1):  # a string of a program, as it is escaped
        text = text.replace("\\r", "").replace("\\n", "\n").replace("\\t", "    ")
    if "&lt;" in text or "&gt;" in text or "&nbsp;" in text:
        text = html.unescape(text).translate(_NOTHING).translate(_SPACES)
    lines = [line.rstrip() for line in text.splitlines()]
    for _ in range(_MOST_QUOTES):
        bare = _without_mark(lines)
        if bare is None:
            break
        lines = bare
    return "\n".join(lines)


def _without_mark(lines: list[str]) -> list[str] | None:
    """Return the lines without the mark that most of them begin with, or None for none."""
    full = [line for line in lines if line.strip()]
    if not full:
        return None
    for mark in _QUOTES:
        marked = sum(line.lstrip().startswith(mark) for line in full)
        # a quote has its mark before every line; a mail's own words may stand around it
        if marked * 10 >= len(full) * 6:
            return [_unquoted(line, mark) for line in lines]
    for prefix in (_SERVICE, _STAMP):
        if len(full) > 1 and sum(prefix.match(line) is not None for line in full) * 10 >= (
            len(full) * 9
        ):
            return [prefix.sub("", line) for line in lines]
    return None


def _unquoted(line: str, mark: str) -> str:
    bare = line.lstrip()
    return bare.removeprefix(mark).removeprefix(" ") if bare.startswith(mark) else line
