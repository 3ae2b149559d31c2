"""``vramplan sweep``: a grid of verdicts, as rows of a file."""

from __future__ import annotations

from argparse import ArgumentParser, ArgumentTypeError, Namespace
from collections.abc import Callable, Iterator
from contextlib import closing

from vramplan.catalog.axes import read_axis, read_axis_assignment
from vramplan.catalog.sweep_file import HERE, PLACES, RAY
from vramplan.commands import arguments
from vramplan.commands.left_out import saying_what_is_left_out
from vramplan.commands.output import choose_format, remark
from vramplan.commands.progress import progress
from vramplan.commands.row_output import PARQUET, rows_output
from vramplan.errors import UsageError
from vramplan.interrupts import ending_tidily
from vramplan.model import SettingValue
from vramplan.quick_typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vramplan.ask.sweep import Sweep

FORMATS = ("csv", "jsonl", PARQUET)
_MOST_JOBS = 1024


def configure(parser: ArgumentParser) -> None:
    """Say what ``sweep`` takes."""
    arguments.describe(parser, "sweep")
    parser.usage = "%(prog)s TARGET ... | FILE.yaml [--set KEY=VALUES ...] [--card CARD ...] [...]"
    parser.add_argument(
        "targets",
        nargs="+",
        metavar="TARGET",
        help=f"{arguments.TARGET_HELP}; or one YAML file that describes the whole sweep",
    )
    arguments.add_cards(
        parser, "this machine's GPUs, or 8gb and 12gb where it has none; `all` is every card known"
    )
    arguments.add_budget(parser, margin=None)
    parser.add_argument(
        "--advice",
        action="store_true",
        help="look for the first change that helps where something does not fit; many times slower",
    )
    arguments.add_settings(parser, read_axis, read_axis_assignment, "VALUES")
    group = parser.add_argument_group("how it is computed and written")
    group.add_argument(
        "--jobs", type=_jobs, metavar="N", help="processes (default: one for each core)"
    )
    group.add_argument(
        "--on",
        choices=PLACES,
        default=HERE,
        help="here, or ray: the Ray cluster of RAY_ADDRESS, one that runs here, or a local one "
        "(the extra cluster)",
    )
    group.add_argument(
        "--format",
        choices=FORMATS,
        help="how rows are written (default: by the suffix of -o FILE, else csv); parquet needs "
        "the extra parquet",
    )
    group.add_argument(
        "-o",
        "--output",
        metavar="FILE",
        help="write to FILE instead of stdout, and go on after the rows that an earlier run of "
        "the same sweep left there; .csv, .jsonl and .parquet choose the format",
    )
    arguments.add_force(group)
    parser.set_defaults(formats=FORMATS, default_format="csv", takes_up=True)
    arguments.add_common(parser)


def _jobs(text: str) -> int:
    if not text.isascii() or not text.isdigit() or not 1 <= int(text[:9]) <= _MOST_JOBS:
        raise ArgumentTypeError(f"{text!r} is not a number of processes from 1 to {_MOST_JOBS}")
    return int(text)


def run(args: Namespace) -> int:
    """Judge and write every row that is not there yet; return 0."""
    from vramplan.ask.sweep import Sweep, available_cores, compute_in_order, read_sweep, require_ray
    from vramplan.report.sweep import WRITERS

    chosen = choose_format(args)
    if chosen == PARQUET:
        from vramplan.report.sweep_parquet import require_pyarrow

        require_pyarrow()
        if args.output in (None, "-"):
            raise UsageError("Parquet is not for stdout", hint="write it to a file with -o FILE")
    if args.on == RAY:
        require_ray()
    question = read_sweep(
        args.targets,
        args.cards,
        _axes(args),
        remark,
        catalog=args.catalog,
        margin_bytes=args.margin,
        other_bytes=args.other,
        wants_advice=args.advice,
    )
    sweep, writer = Sweep(question, remark), WRITERS["jsonl" if chosen == PARQUET else chosen]
    with saying_what_is_left_out():
        sweep.look_for_recordings()
    jobs = args.jobs or (0 if args.on == RAY else available_cores())
    with (
        ending_tidily(),
        progress(args, "sweep") as show,
        rows_output(args.output, chosen, sweep, writer, show, replaces=args.force) as (
            first,
            write,
        ),
        closing(
            compute_in_order(sweep, question, writer.rows, start=first, jobs=jobs, on=args.on)
        ) as batches,
    ):
        _write(sweep, batches, first, write, show)
    return 0


def _axes(args: Namespace) -> dict[str, tuple[SettingValue, ...]]:
    """Return the axes of the command line; values that are given for one key add up."""
    found: dict[str, tuple[SettingValue, ...]] = {}
    for key, values in args.settings:
        found[key] = tuple(dict.fromkeys((*found.get(key, ()), *values)))
    return found


def _write(
    sweep: Sweep,
    batches: Iterator[tuple[int, bytes]],
    first: int,
    write: Callable[[bytes], bool | None],
    show: Callable[..., None],
) -> None:
    show("rows", first, sweep.rows)
    for following, rows in batches:
        if write(rows) is False:  # nobody reads any more
            return
        if following < sweep.rows:
            pipeline, _ = sweep.row_name(following)
            show(f"rows, at {pipeline}", following, sweep.rows)
