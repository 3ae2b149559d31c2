"""Where a command's result goes: stdout or a file, in the format that was asked for."""

from __future__ import annotations

import os
import sys
from argparse import Namespace
from collections.abc import Callable, Mapping
from pathlib import Path

from vramplan.commands.streams import tell, write_stdout
from vramplan.errors import UsageError
from vramplan.quick_typing import TextIO
from vramplan.report.look import FILE_WIDTH, Look

#: what a file's suffix says about its format
SUFFIXES = {
    ".html": "html",
    ".htm": "html",
    ".md": "markdown",
    ".markdown": "markdown",
    ".json": "json",
    ".txt": "table",
    ".csv": "csv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".parquet": "parquet",
    ".pdf": "pdf",
    ".png": "png",
}

#: what a browser prints of a page
PRINTED = ("pdf", "png")

#: makes a result's text or bytes; takes whether colour is wanted and how wide a line may be
Writer = Callable[[bool, int], str | bytes]

#: makes the result's text as it is to look
Render = Callable[[Look], str]


def choose_format(args: Namespace) -> str:
    """Return the format of ``--format``, or of the suffix of ``-o``, or the command's default.

    Raises UsageError for a suffix that names no format, or one that the command does not have.
    """
    if args.format:
        return str(args.format)
    suffix = Path(args.output).suffix.lower() if args.output else ""
    if suffix and suffix not in SUFFIXES:
        known = [name for name, found in SUFFIXES.items() if found in args.formats]
        hint = f"name it {', '.join(known)}, or say what it is with --format"
        raise UsageError(f"{args.output}: {suffix} names no format", hint=hint)
    chosen = SUFFIXES.get(suffix, str(args.default_format))
    if chosen not in args.formats:
        hint = "formats: " + ", ".join(args.formats)
        raise UsageError(f"{args.output}: {args.command} has no {chosen}", hint=hint)
    return chosen


def check_output(args: Namespace) -> None:
    """Raise UsageError where the result could not be written, before much is done to have one."""
    chosen = choose_format(args)
    is_file = args.output and args.output != "-"
    if chosen in PRINTED:
        from vramplan.report.installed_browser import find_browser

        if not is_file:
            raise UsageError(f"a {chosen.upper()} goes into a file", hint=f"-o fit.{chosen}")
        find_browser()
    if not is_file:
        return
    from vramplan.commands.result_file import check_file

    is_taken_up = getattr(args, "takes_up", False)  # it may go on with a file of its own
    check_file(Path(args.output), replaces=args.force or is_taken_up)


def show(args: Namespace, render: Render) -> None:
    """Write a result as it is asked for, to a file or to stdout: `render` makes its text."""
    chosen = choose_format(args)

    def writer(colour: bool, width: int) -> str | bytes:
        if chosen in PRINTED:
            from vramplan.report.installed_browser import print_page

            return print_page(render(Look(format="html", command=args.command)), chosen)
        look = Look(format=chosen, command=args.command, colour=colour, width=width)
        return render(look)

    write_result(args, {chosen: writer})


def write_result(args: Namespace, writers: Mapping[str, Writer]) -> None:
    """Write the result with the one of `writers` that is asked for, to a file or to stdout."""
    writer = writers[choose_format(args)]
    if args.output and args.output != "-":
        from vramplan.commands.result_file import write_file

        path = Path(args.output)
        content = writer(False, FILE_WIDTH)  # noqa: FBT003  # Writer's two parameters
        write_file(path, content, replaces=args.force)
        note(f"wrote {path}")
        return
    text = writer(*_terminal(sys.stdout))
    assert isinstance(text, str)  # bytes go into a file: `check_output`
    write_stdout(text)


def _terminal(stream: TextIO) -> tuple[bool, int]:
    """Return whether colour is wanted on `stream`, and its width."""
    if not stream.isatty():
        return False, FILE_WIDTH
    import shutil

    from vramplan.report.colour import wants_colour

    return wants_colour(stream, os.environ), shutil.get_terminal_size((FILE_WIDTH, 24)).columns


def remark(text: str) -> None:
    """Tell how a question was understood: a remark of `ask`, as a note."""
    note(f"note: {text}")


def note(text: str) -> None:
    """Tell the person at the terminal something that is not the result: one line on stderr."""
    from vramplan.report.text import clean, for_encoding

    tell(f"{for_encoding(clean(text), sys.stderr.encoding)}\n")
