"""Text that may come from a stranger's file, made harmless and fitted to a width."""

from __future__ import annotations

import re
import unicodedata

#: how much of a name, and how much of a sentence, a person gets to see
NAME_LIMIT = 48
PROSE_LIMIT = 800

#: complete control sequences of terminals: CSI, OSC and other strings, two-character escapes
_ESCAPES = re.compile(
    r"(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]"
    r"|(?:\x1b[\]PX^_]|[\x90\x98\x9d-\x9f])[^\x07\x1b\x9c]*(?:\x07|\x1b\\|\x9c)"
    r"|\x1b[ -/]*[0-~]"
)
_SPACES = re.compile(r"\s+")

#: what a terminal or a file that knows only ASCII shows instead of our own signs
_ASCII = str.maketrans(
    {
        "✓": "+",
        "⚠": "!",
        "✗": "x",
        "·": "-",
        "\N{EN DASH}": "-",
        "\N{MINUS SIGN}": "-",
        "─": "-",
        "│": "|",
        "┊": "|",
        "┼": "+",
        "├": "[",
        "┤": "]",
        "┴": "+",
        "↑": "^",
        "←": "<",
        "█": "#",
        "▒": "=",
        "░": ".",
        "▶": ">",
        "▌": "#",
        "→": "->",
        "\N{MULTIPLICATION SIGN}": "x",
        "…": "...",
        "²": "2",
    }
)


def clean(text: str, limit: int = PROSE_LIMIT) -> str:
    """Return `text` as one line that is safe to print, at most `limit` characters long.

    Terminal escapes and invisible format characters (the ones that reverse or hide text) go, other
    control characters and halves of surrogate pairs become U+FFFD, white space becomes one space.
    """
    # A file of megabytes must not cost a second to shorten.
    text = _SPACES.sub(" ", _ESCAPES.sub("", text[: 8 * limit]))
    text = "".join(_harmless(letter) for letter in text).strip()
    return text if len(text) <= limit else text[: limit - 1] + "…"


def _harmless(letter: str) -> str:
    if letter.isascii():
        return letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}"
    match unicodedata.category(letter):
        case "Cf":
            return ""
        case "Zl" | "Zp" | "Zs":
            return " "
        case "Cc" | "Cs":
            return "\N{REPLACEMENT CHARACTER}"
        case "Cn" if ord(letter) & 0xFFFE == 0xFFFE or 0xFDD0 <= ord(letter) <= 0xFDEF:
            return "\N{REPLACEMENT CHARACTER}"
        case _:
            return letter


def width_of(text: str) -> int:
    """Return how many cells of a terminal `text` takes; East Asian wide characters take two."""
    if text.isascii():
        return len(text)
    return sum(2 if unicodedata.east_asian_width(letter) in "WF" else 1 for letter in text)


def cut(text: str, width: int) -> str:
    """Return `text` shortened to `width` cells, with an ellipsis where something is missing."""
    if width_of(text) <= width:
        return text
    kept = ""
    for letter in text:
        if width_of(kept + letter) > max(width - 1, 0):
            break
        kept += letter
    return kept + "…"


def fit(text: str, width: int) -> str:
    """Return `text` cut or filled up with blanks to exactly `width` cells."""
    shown = cut(text, width)
    return shown + " " * (width - width_of(shown))


def wrap(text: str, width: int) -> list[str]:
    """Return `text` as lines of at most `width` cells, broken at spaces where there are any."""
    width = max(width, 2)
    lines = [""]
    for word in text.split(" "):
        joined = f"{lines[-1]} {word}" if lines[-1] else word
        if width_of(joined) <= width:
            lines[-1] = joined
            continue
        pieces = _pieces(word, width)
        lines[-1:] = [*([lines[-1]] if lines[-1] else []), *pieces]
    return lines


def _pieces(word: str, width: int) -> list[str]:
    """Return `word` in pieces of at most `width` cells, broken behind a joint where it has one."""
    pieces: list[str] = []
    while width_of(word) > width:
        size = width
        while width_of(word[:size]) > width:
            size -= 1
        joint = max(word.rfind(mark, 0, size) for mark in "-_./:")
        if joint > width // 3:
            size = joint + 1
        pieces.append(word[:size])
        word = word[size:]
    return [*pieces, word]


def for_encoding(text: str, encoding: str | None) -> str:
    """Return `text` as `encoding` can write it: our signs spelled in ASCII where they must be.

    None stands for a stream that does not say; it gets the text as it is.
    """
    if encoding is None:
        return text
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        return text.translate(_ASCII).encode(encoding, errors="replace").decode(encoding)
    except LookupError:
        return text.translate(_ASCII).encode("ascii", errors="replace").decode("ascii")
    return text
