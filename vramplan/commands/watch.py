"""``vramplan watch``: the cards live, who holds what, and the peaks at the end."""

from __future__ import annotations

import re
from argparse import ArgumentParser, Namespace
from contextlib import AbstractContextManager, nullcontext, suppress
from functools import partial
from pathlib import Path

from vramplan.ask.targets import open_catalog
from vramplan.ask.watch import (
    Pace,
    Planner,
    Watching,
    open_cards,
    plan_nothing,
    plan_size,
    plan_target,
    replay_cards,
    sample_run,
)
from vramplan.commands import arguments
from vramplan.commands.output import remark, show
from vramplan.commands.screen import screen
from vramplan.commands.streams import is_watched
from vramplan.errors import UsageError
from vramplan.report.watch import render
from vramplan.units import parse_size

FORMATS = ("table", "json", "markdown")

#: ASCII's digits alone: Python's own word for a digit takes ² too
_SECONDS = re.compile(r"[0-9]{1,8}(?:\.[0-9]{0,6})?|\.[0-9]{1,6}")
_COUNT = re.compile(r"[0-9]{1,12}")


def configure(parser: ArgumentParser) -> None:
    """Say what ``watch`` takes."""
    arguments.describe(parser, "watch")
    parser.usage = "%(prog)s [TARGET] [--budget SIZE] [--interval SECONDS] [option ...]"
    parser.add_argument(
        "target", nargs="?", metavar="TARGET", help=f"draws its need: {arguments.TARGET_HELP}"
    )
    parser.add_argument(
        "--budget", type=parse_size, metavar="SIZE", help="draws this size, such as 7.5GiB"
    )
    parser.add_argument(
        "--interval",
        type=_read_seconds,
        default=0.5,
        metavar="SECONDS",
        help="between two looks (default: 0.5)",
    )
    parser.add_argument(
        "--for",
        dest="seconds",
        type=_read_seconds,
        metavar="SECONDS",
        help="end after this long (default: until Ctrl-C)",
    )
    parser.add_argument("--count", type=_read_count, metavar="N", help="end after so many looks")
    parser.add_argument(
        "--gpu", metavar="GPU", help="one GPU alone: its index or UUID (default: all)"
    )
    parser.add_argument(
        "--replay",
        type=Path,
        nargs="?",
        const=sample_run(),
        metavar="RUN",
        help="a run that vramplan profile kept, not this machine; without RUN one that ships",
    )
    arguments.add_settings(parser)
    arguments.add_output(parser, FORMATS)
    arguments.add_common(parser)


def run(args: Namespace) -> int:
    """Watch, then write the summary; return 0, after Ctrl-C too."""
    with _open(args, _planner(args)) as watching:
        draw = screen()
        waits = args.replay is None or is_watched()
        pace = Pace(interval_s=args.interval, seconds=args.seconds, count=args.count)
        with suppress(KeyboardInterrupt):
            watching.look_on(pace, lambda at_s: draw(at_s, watching), waits=waits)
    show(args, partial(render, watching.cards))
    return 0


def _open(args: Namespace, planner: Planner) -> AbstractContextManager[Watching]:
    if args.replay is None:
        return open_cards(args.gpu, planner)
    if args.gpu is not None:
        raise UsageError("--replay has its card: leave --gpu out")
    return nullcontext(replay_cards(args.replay, planner))


def _planner(args: Namespace) -> Planner:
    if args.budget is not None and args.target is not None:
        raise UsageError("a TARGET and a --budget are two plans: name one")
    if args.budget is not None:
        return plan_size(args.budget)
    if args.target is not None:
        return plan_target(
            args.target, open_catalog(args.catalog), arguments.given_settings(args), remark
        )
    if args.settings:
        raise UsageError("settings belong to a TARGET, and none was named")
    return plan_nothing


def _read_seconds(text: str) -> float:
    seconds = float(text) if _SECONDS.fullmatch(text) else 0.0
    if not 0.01 <= seconds <= 10_000_000:
        raise UsageError(f"not a time in seconds: {text!r}", hint="from 0.01 on, such as 0.5")
    return seconds


def _read_count(text: str) -> int:
    if not _COUNT.fullmatch(text) or int(text) < 1:
        raise UsageError(f"not a number of looks: {text!r}")
    return int(text)
