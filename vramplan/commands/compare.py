"""``vramplan compare``: the estimate beside torch, NVML and nvidia-smi."""

from __future__ import annotations

import re
from argparse import ArgumentParser, Namespace
from functools import partial

from vramplan.ask.compare import compare, explain
from vramplan.ask.targets import open_catalog
from vramplan.commands import arguments
from vramplan.commands.input import read_pasted
from vramplan.commands.output import note, remark, show
from vramplan.errors import UsageError
from vramplan.report.comparison import render, render_explanation

FORMATS = ("table", "json", "markdown", "html", "pdf", "png")

#: of a pasted text no more is read, and one that is longer than the readers take is refused
_LONGEST = 4 << 20

#: digits are ASCII's everywhere: Python's own word for one takes ² too
_PID = re.compile(r"[0-9]{1,10}")
_PERCENT = re.compile(r"[0-9]{1,4}(?:\.[0-9]{0,6})?|\.[0-9]{1,6}")
_MOST_PERCENT = 1000


def configure(parser: ArgumentParser) -> None:
    """Say what ``compare`` takes."""
    arguments.describe(parser, "compare")
    parser.usage = (
        "%(prog)s [TARGET|RUN] [--pid PID | --smi FILE] [--tolerance PERCENT] [option ...]"
    )
    parser.add_argument(
        "target",
        nargs="?",
        metavar="TARGET|RUN",
        help=f"{arguments.TARGET_HELP}; or the file of a run (.json, .json.gz). "
        "Without one --pid and --smi say whose the memory is",
    )
    group = parser.add_mutually_exclusive_group()
    group.add_argument("--pid", type=_read_pid, metavar="PID", help="a process that runs now")
    group.add_argument(
        "--smi",
        metavar="FILE",
        help="what nvidia-smi printed (its table, -q, XML, CSV, pmon), or torch's out-of-memory "
        "message; - is stdin",
    )
    parser.add_argument(
        "--gpu",
        metavar="GPU",
        help="which GPU --pid or --smi is about: its index or UUID, or 0:1 for MIG instance 1 of "
        "GPU 0 (default: the one the process is on, else the fullest)",
    )
    parser.add_argument(
        "--tolerance",
        type=_read_percent,
        metavar="PERCENT",
        help="exit with 1 where a residual is larger: of the peaks, phases and buffers; with --pid "
        "and --smi, where more than this is unaccounted",
    )
    parser.add_argument(
        "--events",
        action="store_true",
        help="hold the run's allocator events, where it has them, against the tape, one by one",
    )
    arguments.add_settings(parser)
    arguments.add_output(parser, FORMATS)
    arguments.add_cache(parser)
    arguments.add_common(parser)


def run(args: Namespace) -> int:
    """Compare, write, and return 1 where a residual is outside the tolerance."""
    if args.target is None:
        _refuse_without_target(args)
    catalog, settings = open_catalog(args.catalog), arguments.given_settings(args)
    if args.pid is not None or args.smi is not None:
        if args.events:
            raise UsageError("--events needs a run: a card seen from outside tells no events")
        text = None if args.smi is None else read_pasted(args.smi, _LONGEST)
        explained = explain(
            args.target, catalog, settings, pid=args.pid, smi=text, gpu=args.gpu, remark=remark
        )
        show(args, partial(render_explanation, explained, tolerance_percent=args.tolerance))
        return _judge(explained.worst_percent, args.tolerance)
    if args.gpu is not None:
        raise UsageError("--gpu is for --pid and --smi: a run has its GPU")
    found = compare(args.target, catalog, settings, wants_events=args.events, remark=remark)
    for said in found.remarks:
        remark(said)
    show(args, partial(render, found.comparison, tolerance_percent=args.tolerance))
    return _judge(found.comparison.worst_percent, args.tolerance)


def _refuse_without_target(args: Namespace) -> None:
    if args.pid is None and args.smi is None:
        hint = "name a TARGET or the file of a run; or --smi FILE, or --pid PID"
        raise UsageError("nothing to compare", hint=hint)
    if args.settings or args.tolerance is not None or args.events:
        raise UsageError(
            "settings, --tolerance and --events belong to a TARGET, and none was named"
        )


def _judge(worst: float | None, tolerance: float | None) -> int:
    if tolerance is None or worst is None or worst <= tolerance:
        return 0
    note(f"outside the tolerance: {worst:.1f} % is more than {tolerance:g} %")
    return 1


def _read_pid(text: str) -> int:
    if not _PID.fullmatch(text) or not 0 < int(text) < 1 << 32:
        raise UsageError(f"--pid: not a process's number: {text!r}")
    return int(text)


def _read_percent(text: str) -> float:
    number = text.removesuffix("%").strip()
    if not _PERCENT.fullmatch(number) or float(number) > _MOST_PERCENT:
        raise UsageError(f"--tolerance: not a percentage: {text!r}", hint="such as 4")
    return float(number)
