"""Where a command's result goes: stdout or a file, in the format that was asked for."""

from __future__ import annotations

import os
import sys
from argparse import Namespace
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TextIO

from vramplan.commands.streams import tell, write_stdout
from vramplan.errors import UsageError
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
}

#: makes the result's text; takes whether colour is wanted and how wide a line may be
Writer = Callable[[bool, int], str]

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
    choose_format(args)
    if not args.output or args.output == "-":
        return
    path = Path(args.output)
    why = _refusal(path)
    if why is not None:
        raise UsageError(f"{path}: cannot be written: {why}")


def _refusal(path: Path) -> str | None:
    """Return why nothing can be written to `path`, or None."""
    if "\0" in str(path):
        return "no file's name has a NUL"
    if any("\ud800" <= letter < "\udc80" for letter in str(path)):
        return "no file's name has half a character"
    real = _behind_links(path)
    folder = real.parent
    try:
        if real.is_symlink():
            return "its links lead in a circle"
        if real.is_dir():
            return "it is a folder"
        if not folder.is_dir():
            return f"there is no folder {folder}"
        if real.exists() and not os.access(real, os.W_OK):
            return "it is not yours to write to"
        if real.exists() and not real.is_file():  # a device or a pipe is written to as it is
            return None
        if not os.access(folder, os.W_OK | os.X_OK):
            return f"{folder} is not yours to write to"
    except OSError as problem:  # a name that is too long
        return problem.strerror
    return None


def _behind_links(path: Path) -> Path:
    """Return where `path` leads, so that a link stays one; a circle of links leads to itself."""
    return Path(os.path.realpath(path))


def show(args: Namespace, render: Render) -> None:
    """Write a result as it is asked for, to a file or to stdout: `render` makes its text."""
    chosen = choose_format(args)

    def writer(colour: bool, width: int) -> str:
        look = Look(format=chosen, command=args.command, colour=colour, width=width)
        return render(look)

    write_result(args, {chosen: writer})


def write_result(args: Namespace, writers: Mapping[str, Writer]) -> None:
    """Write the result with the one of `writers` that is asked for, to a file or to stdout."""
    writer = writers[choose_format(args)]
    if args.output and args.output != "-":
        path = Path(args.output)
        write_file(path, writer(False, FILE_WIDTH))  # noqa: FBT003  # Writer's two parameters
        note(f"wrote {path}")
        return
    write_stdout(writer(*_terminal(sys.stdout)))


def _terminal(stream: TextIO) -> tuple[bool, int]:
    """Return whether colour is wanted on `stream`, and its width."""
    if not stream.isatty():
        return False, FILE_WIDTH
    import shutil

    from vramplan.report.colour import wants_colour

    return wants_colour(stream, os.environ), shutil.get_terminal_size((FILE_WIDTH, 24)).columns


def write_file(path: Path, text: str) -> None:
    """Write `text` to `path`, which is never there by half. Raises UsageError."""

    def write(beside: Path) -> None:
        is_new = beside != _behind_links(path)
        # "x": a file or a link that somebody else has put there is not followed
        with beside.open("x" if is_new else "w", encoding="utf-8", newline="\n") as file:
            file.write(text)

    write_through(path, write)


def write_bytes(path: Path, data: bytes) -> None:
    """Write `data` to `path`, which is never there by half. Raises UsageError."""

    def write(beside: Path) -> None:
        # "x": as above
        with beside.open("xb" if beside != _behind_links(path) else "wb") as file:
            file.write(data)

    write_through(path, write)


def write_through(path: Path, write: Callable[[Path], None]) -> None:
    """Have `write` make a file beside `path` and put it in its place, so that it is never half.

    What is not a plain file (a pipe, /dev/null) is written to as it is. Raises UsageError.
    """
    why = _refusal(path)
    if why is not None:
        raise UsageError(f"{path}: cannot be written: {why}")
    path = _behind_links(path)
    if path.exists() and not path.is_file():
        beside = path
    else:  # of a name as long as the system takes there is no longer one
        beside = path.with_name(f".vramplan-{os.getpid()}.part")
    try:
        write(beside)
        if beside != path:
            beside.replace(path)
    except OSError as problem:
        raise UsageError(f"{path}: cannot be written: {problem.strerror}") from problem
    finally:
        if beside != path:
            beside.unlink(missing_ok=True)


def remark(text: str) -> None:
    """Tell how a question was understood: a remark of `ask`, as a note."""
    note(f"note: {text}")


def note(text: str) -> None:
    """Tell the person at the terminal something that is not the result: one line on stderr."""
    from vramplan.report.text import clean, for_encoding

    tell(f"{for_encoding(clean(text), sys.stderr.encoding)}\n")
