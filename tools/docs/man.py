"""Writes the man page of every command and option from the parser.

    python -m tools.docs.man            print vramplan.1
    python -m tools.docs.man FILE       write it to FILE

No copy is kept: the build puts a fresh one into the wheel (hatch_build.py), where it lands in
``share/man/man1``. It needs the standard library alone, so that a build needs nothing else.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from tools.docs.command_line import invocation, placeholder, subcommands, usage, visible

_NAME = "plan the GPU memory of AI pipelines"
_EXITS = (
    ("0", "everything fits, or what was asked for is shown or written"),
    ("1", "something does not fit, or a comparison is outside its tolerance"),
    ("2", "bad usage, a bad catalogue or an internal error"),
    ("3", "nothing to measure with: no GPU, no driver, an extra that is not installed"),
    ("130", "interrupted"),
)
_ENVIRONMENT = (
    ("VRAMPLAN_CATALOG", "folders of pipelines and cards of yours, as PATH separates them"),
    ("VRAMPLAN_CACHE", "the folder of what is remembered between runs; off for none"),
    ("VRAMPLAN_RECORD", "off: record no model on the spot that has no tape"),
    ("VRAMPLAN_CORE", "off: replay in Python, without the compiled core"),
    ("VRAMPLAN_BROWSER", "the browser that prints PDF and PNG"),
    ("NO_COLOR", "no colour, on a terminal either"),
)


def render(parser: argparse.ArgumentParser, version: str, summaries: Mapping[str, str]) -> str:
    """Return the page in roff's man macros, in ASCII: other signs are written as roff names them.

    `summaries` has a line for each command, by its name.

    Every line that comes from the parser is made harmless: a full stop or an apostrophe at its
    beginning would be a request, a backslash an escape.
    """
    name = parser.prog
    lines = [f'.TH {name.upper()} 1 "" "{escape(f"{name} {version}")}" "User Commands"']
    lines += [".nh", ".ad l"]  # no word of a command is broken
    lines += [".SH NAME", f"{escape(name)} \\- {escape(_NAME)}"]
    lines += [".SH SYNOPSIS", f".B {escape(name)}", r"\fICOMMAND\fR [\fIoption\fR ...]"]
    lines += [".SH DESCRIPTION", *_text(parser.description or ""), ".PP"]
    lines += ["Commands:", *_listed(summaries.items())]
    lines += [".SH OPTIONS", *_options(parser)]
    lines.append(".SH COMMANDS")
    for _, sub in subcommands(parser):
        lines += _command(sub)
    lines += [".SH EXIT STATUS", *_listed(_EXITS)]
    lines += [".SH ENVIRONMENT", *_listed(_ENVIRONMENT)]
    return "\n".join(lines) + "\n"


def _command(parser: argparse.ArgumentParser) -> Iterator[str]:
    yield f".SS {escape(parser.prog)}"
    yield from _text(parser.description or "")
    yield ".PP"
    yield f".B {escape(usage(parser))}"
    yield from _options(parser)
    if parser.epilog:
        yield from _prose(parser.epilog)
    for _, below in subcommands(parser):
        yield from _command(below)


def _options(parser: argparse.ArgumentParser) -> Iterator[str]:
    for action in visible(parser):
        names = action.option_strings or [""]
        written = ", ".join(f"{name} {placeholder(action)}".strip() for name in names)
        meaning = (action.help or "") % {**vars(action), "prog": parser.prog}
        yield from _entry(written or invocation(action), meaning)


def _prose(text: str) -> Iterator[str]:
    """Return an epilog: of its paragraphs, lines indented by two are a list."""
    for paragraph in text.strip().split("\n\n"):
        lead, *items = re.split(r"\n  (?=\S)", paragraph)
        yield ".PP"
        yield from _text(lead)
        for item in items:
            yield ".br" if item is not items[0] else ".RS 2"
            yield from _text(item)
        if items:
            yield ".RE"


def _listed(entries: Iterable[tuple[str, str]]) -> Iterator[str]:
    for name, meaning in entries:
        yield from _entry(name, meaning)


def _entry(name: str, meaning: str) -> Iterator[str]:
    yield ".TP"
    yield f"\\fB{escape(name)}\\fR"
    yield from _text(meaning or "(no description)")


def _text(text: str) -> list[str]:
    """Return running text as one line; `code` between backticks is bold."""
    pieces = re.split(r"`([^`]*)`", " ".join(text.split()))
    line = "".join(
        f"\\fB{escape(piece)}\\fR" if number % 2 else escape(piece)
        for number, piece in enumerate(pieces)
    )
    return [rf"\&{line}" if line.startswith((".", "'")) else line] if line else []


def escape(text: str) -> str:
    """Return `text` as roff shows it: nothing in it is a request or an escape."""
    marked = text.replace("\\", "\\e").replace("-", "\\-").replace("'", "\\(aq").replace("`", "\\`")
    marked = "".join(
        letter if letter.isascii() and letter.isprintable()
        else " " if letter.isspace()
        else f"\\[u{ord(letter):04X}]" if letter.isprintable()
        else "?"
        for letter in marked
    )  # fmt: skip
    return rf"\&{marked}" if marked.startswith(".") else marked


def render_commands() -> str:
    """Return the man page of vramplan."""
    from vramplan import __version__
    from vramplan.cli import COMMANDS, build_parser

    return render(build_parser(), __version__, COMMANDS)


if __name__ == "__main__":
    page = render_commands()
    if sys.argv[1:]:
        Path(sys.argv[1]).write_text(page, encoding="ascii")
    else:
        sys.stdout.write(page)
