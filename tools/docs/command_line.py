"""Writes the lower half of command-line.md from the parser, so that the page cannot go stale.

    python -m tools.docs.command_line            rewrite docs/command-line.md
    python -m tools.docs.command_line --check    exit 1 where it is out of date

Everything above the marker is written by hand and kept.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterator

from tools.docs.page import ROOT, escape, run_generator

MODULE = "tools.docs.command_line"
PAGE = ROOT / "docs" / "command-line.md"


def render(parser: argparse.ArgumentParser) -> str:
    """Return the reference of all of a parser's subcommands as MyST."""
    sections = [_command(sub) for _, sub in subcommands(parser)]
    common = _definitions(parser)
    if common:
        sections.append("## Options of every command\n\n" + common)
    return "\n\n".join(sections) + "\n"


def _command(parser: argparse.ArgumentParser, level: int = 2) -> str:
    """Return one command's section: what it does, how it is called, what it takes."""
    parts = [f"{'#' * level} {parser.prog}"]
    if parser.description:
        parts.append(escape(parser.description))
    parts.append(f"```text\n{usage(parser)}\n```")
    definitions = _definitions(parser)
    if definitions:
        parts.append(definitions)
    if parser.epilog:
        parts.append(_prose(parser.epilog))
    parts.extend(_command(sub, level + 1) for _, sub in subcommands(parser))
    return "\n\n".join(parts)


def _prose(text: str) -> str:
    """Return an epilog as Markdown: of its paragraphs, lines indented by two are a list."""
    parts = []
    for paragraph in text.strip().split("\n\n"):
        lead, *items = (escape(part) for part in re.split(r"\n  (?=\S)", paragraph))
        parts += [lead, "\n".join(f"- {item}" for item in items)] if items else [lead]
    return "\n\n".join(parts)


def subcommands(
    parser: argparse.ArgumentParser,
) -> Iterator[tuple[str, argparse.ArgumentParser]]:
    """Yield each subcommand once, under its own name (argparse lists aliases as further names)."""
    seen: set[int] = set()
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for name, sub in action.choices.items():
                if id(sub) not in seen:
                    seen.add(id(sub))
                    yield name, sub


def visible(parser: argparse.ArgumentParser) -> list[argparse.Action]:
    """Return the arguments that a reader is told of."""
    return [
        action
        for action in parser._actions
        if action.help != argparse.SUPPRESS
        and not isinstance(action, argparse._SubParsersAction | argparse._HelpAction)
    ]


def usage(parser: argparse.ArgumentParser) -> str:
    """Return a line of usage; argparse's own differs from one Python to the next."""
    actions = visible(parser)
    words = [parser.prog]
    words += [invocation(a) for a in actions if not a.option_strings]
    words += [invocation(a) for a in actions if a.option_strings and a.required]
    if any(a.option_strings and not a.required for a in actions):
        words.append("[option …]")
    if any(True for _ in subcommands(parser)):
        words.append("COMMAND …")
    return " ".join(words)


def invocation(action: argparse.Action) -> str:
    """Return how an argument is written: its longest name and its value."""
    if not action.option_strings:
        name = placeholder(action)
        if action.nargs == "*":
            return f"[{name} …]"
        if action.nargs == "?":
            return f"[{name}]"
        return f"{name} …" if action.nargs == "+" else name
    value = placeholder(action)
    flag = max(action.option_strings, key=len)
    return f"{flag} {value}" if value else flag


def placeholder(action: argparse.Action) -> str:
    """Return the placeholder of an argument's value; empty for a switch."""
    if action.nargs == 0:
        return ""
    if isinstance(action.metavar, tuple):
        return " ".join(action.metavar)
    if action.metavar is not None:
        return action.metavar
    if action.choices is not None:
        return "{" + ",".join(str(choice) for choice in action.choices) + "}"
    return action.dest.upper()


def _definitions(parser: argparse.ArgumentParser) -> str:
    """Return the arguments as a definition list: how each is written, then what it means."""
    entries = []
    for action in visible(parser):
        names = action.option_strings or [""]
        written = ", ".join(f"`{f'{name} {placeholder(action)}'.strip()}`" for name in names)
        # a placeholder such as %(default)s is filled in by argparse in the same way
        words = {**vars(action), "prog": parser.prog}
        meaning = escape((action.help or "") % words) or "(no description)"
        entries.append(f"{written}\n: {meaning}")
    return "\n\n".join(entries)


def render_commands() -> str:
    """Return the reference of vramplan's own commands."""
    from vramplan.cli import build_parser

    return render(build_parser())


if __name__ == "__main__":
    sys.exit(run_generator(PAGE, MODULE, render_commands))
