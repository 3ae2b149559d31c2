"""``vramplan record``: the tape of a torch pipeline, recorded without weights and without a GPU."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from pathlib import Path

from vramplan.ask.record import Recorded, record
from vramplan.ask.targets import open_catalog
from vramplan.commands import arguments
from vramplan.commands.output import note
from vramplan.commands.progress import progress_of_runs
from vramplan.commands.result_file import check_file, write_file
from vramplan.commands.streams import write_stdout
from vramplan.report.drift_lines import drift_text


def configure(parser: ArgumentParser) -> None:
    """Say what ``record`` takes."""
    arguments.describe(parser, "record")
    parser.usage = "%(prog)s TARGET [--dtype TYPE] [-o FILE] [--check] [option ...]"
    parser.add_argument("target", metavar="TARGET", help=arguments.TARGET_HELP)
    parser.add_argument(
        "--dtype",
        metavar="TYPE",
        help="the tape for another dtype than the pipeline's default, which is a file of its own",
    )
    parser.add_argument(
        "-o",
        "--output",
        metavar="FILE",
        help="write the tape to FILE (default: in the folder tapes of the pipeline's catalogue)",
    )
    arguments.add_force(parser)
    parser.add_argument(
        "--check",
        action="store_true",
        help="write nothing; exit with 1 where the tape is not what would be recorded now, and say "
        "by how many bytes that changes its peaks",
    )
    arguments.add_common(parser)


def run(args: Namespace) -> int:
    """Record, prove and write the tape; return 1 where ``--check`` finds that it differs."""
    is_named = args.output not in (None, "-")  # else a tape is refreshed in its place
    if is_named and not args.check and Path(args.output).exists():
        check_file(Path(args.output), replaces=args.force)
    with progress_of_runs(args, "recording") as progress:
        found = record(
            args.target,
            open_catalog(args.catalog),
            output=args.output,
            dtype=args.dtype,
            is_proved=not args.check,
            progress=progress,
        )
    if args.check:
        difference = found.difference()
        if difference is not None:
            note(difference)
            write_stdout(drift_text(found.drift()))
        return int(difference is not None)
    if args.output == "-":
        write_stdout(found.text)
        return 0
    _write(found, replaces=args.force or not is_named)
    return 0


def _write(found: Recorded, *, replaces: bool) -> None:
    found.path.parent.mkdir(parents=True, exist_ok=True)
    data = found.data
    write_file(found.path, data, replaces=replaces)
    note(f"{len(data) / 1024:,.0f} KiB")
    write_stdout(f"{found.path}\n")
