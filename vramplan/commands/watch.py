"""``vramplan watch``: the cards live, who holds what, and the peaks at the end."""

from __future__ import annotations

import os
import shutil
import sys
import time
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from vramplan.commands import arguments
from vramplan.commands.arguments import given_settings
from vramplan.commands.output import remark, write_result
from vramplan.errors import MissingError, UsageError
from vramplan.report.sheet import Sheet, draw_sheet, mark_sheet
from vramplan.report.watch_view import (
    Plan,
    Watched,
    draw_live,
    plain_line,
    summary_table,
    watch_result,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from vramplan.probe.protocol import Probe

    Show = Callable[[float], None]
    ShowAll = Callable[[float, Sequence[Watched], Plan | None], None]

FORMATS = ("table", "json", "markdown")

_DESCRIPTION = (
    "Show this machine's cards live: what is used, who holds it, and the highest so far. With "
    "TARGET or --budget a line is drawn where the plan is. Ctrl-C ends it and shows the peaks."
)

_EPILOG = f"""\
The live view goes to stderr, the summary at the end to stdout. Where stderr is no terminal, each
look is a line.

examples:
  watch until Ctrl-C:
    `vramplan watch`
  does the run keep to its plan? SD 1.5's need is drawn across the card:
    `vramplan watch sd15 --image 768x768`
  ten looks a second for a minute, the peaks for a script:
    `vramplan watch --interval 0.1 --for 60 --json`
  a run that was measured elsewhere, again:
    `vramplan watch --replay run.json`

exit codes: `0` ended, by Ctrl-C too; `3` no GPU; {arguments.COMMON_EXITS}
"""


def configure(parser: ArgumentParser) -> None:
    """Say what ``watch`` takes."""
    parser.description = _DESCRIPTION
    parser.epilog = _EPILOG
    parser.usage = "%(prog)s [TARGET] [--budget SIZE] [--interval SECONDS] [option ...]"
    parser.add_argument(
        "target", nargs="?", metavar="TARGET", help=f"draws its need: {arguments.TARGET_HELP}"
    )
    parser.add_argument(
        "--budget", type=_read_budget, metavar="SIZE", help="draws this size, such as 7.5GiB"
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
        metavar="RUN",
        help="a run that vramplan profile kept, not this machine",
    )
    arguments.add_settings(parser)
    arguments.add_output(parser, FORMATS)
    arguments.add_common(parser)


def run(args: Namespace) -> int:
    """Watch, then write the summary; return 0, after Ctrl-C too."""
    plan = _plan(args)
    with ExitStack() as stack:
        cards = _open_cards(args, stack)
        watched = [one for one, _ in cards]
        with suppress(KeyboardInterrupt), _screen() as show:
            _look_on(args, cards, lambda began: show(began, watched, plan))
    _write(args, watched, plan)
    return 0


Cards = Sequence[tuple[Watched, "Probe"]]


def _open_cards(args: Namespace, stack: ExitStack) -> Cards:
    """Return the cards to be watched, each with the eyes on it."""
    from vramplan.measurement.peaks import Peaks

    if args.replay is not None:
        from vramplan.measurement.files import read_run
        from vramplan.probe.recorded import RecordedProbe

        if args.gpu is not None:
            raise UsageError("--replay has its card: leave --gpu out")
        saved = read_run(args.replay)
        name = saved.gpu.name if saved.gpu is not None else "no GPU"
        label = f"{name}, recorded {saved.created}: {saved.pipeline}"
        return [(Watched(label=label, peaks=Peaks()), RecordedProbe(saved))]
    from vramplan.probe.choice import choose_gpu
    from vramplan.probe.nvml import NvmlProbe, read_inventory

    try:
        inventory = read_inventory()
    except MissingError as problem:
        hint = "without a GPU: vramplan watch --replay RUN shows a run that was kept"
        raise MissingError(str(problem), hint=hint) from problem
    gpus = inventory.gpus if args.gpu is None else (choose_gpu(inventory, args.gpu),)
    return [
        (
            Watched(label=f"{gpu.index}: {gpu.name}", peaks=Peaks()),
            stack.enter_context(NvmlProbe(gpu.uuid)),
        )
        for gpu in gpus
    ]


def _look_on(args: Namespace, cards: Cards, show: Show) -> None:
    began = due = time.monotonic()
    looks = 0
    while True:
        for one, probe in cards:
            one.peaks.take(probe.read())
        looks += 1
        show(time.monotonic() - began)
        if args.replay is not None and all(getattr(probe, "is_over", True) for _, probe in cards):
            return
        if args.count is not None and looks >= args.count:
            return
        due = max(due + args.interval, time.monotonic())
        if args.seconds is not None and due - began > args.seconds:
            return
        if args.replay is None or sys.stderr.isatty():
            time.sleep(max(0.0, due - time.monotonic()))


@contextmanager
def _screen() -> Iterator[ShowAll]:
    """Give what shows one look: redrawn in place on a terminal, a line each elsewhere."""
    stream = sys.stderr
    is_terminal = stream.isatty()
    drawn = [0]

    def show(at_s: float, watched: Sequence[Watched], plan: Plan | None) -> None:
        if not is_terminal:
            print(plain_line(at_s, watched), file=stream, flush=True)
            return
        from vramplan.report.colour import wants_colour

        columns, rows = shutil.get_terminal_size((80, 24))
        colour = wants_colour(stream, os.environ)
        lines = draw_live(watched, plan, colour=colour, width=columns - 1)[: rows - 1]
        up = f"\x1b[{drawn[0]}F\x1b[J" if drawn[0] else ""
        stream.write(up + "\n".join(lines) + "\n")
        stream.flush()
        drawn[0] = len(lines)

    yield show


def _plan(args: Namespace) -> Plan | None:
    if args.budget is not None and args.target is not None:
        raise UsageError("a TARGET and a --budget are two plans: name one")
    if args.budget is not None:
        return Plan(label="budget", size_bytes=args.budget)
    if args.target is None:
        if args.settings:
            raise UsageError("settings belong to a TARGET, and none was named")
        return None
    from vramplan.ask.targets import make_jobs, open_catalog
    from vramplan.catalog.cards import assumed_card
    from vramplan.engines.door import engine_of

    catalog = open_catalog(args.catalog)
    (job,) = make_jobs([args.target], catalog, given_settings(args), remark=remark)
    found = engine_of(job.pipeline).estimate(job, assumed_card())
    return Plan(
        label=f"{job.pipeline.name} at its peak",
        size_bytes=found.peak.device.expected_bytes,
    )


def _write(args: Namespace, watched: Sequence[Watched], plan: Plan | None) -> None:
    lines = []
    if plan is not None:
        from vramplan.units import format_size

        lines.append(f"planned: {plan.label}, {format_size(plan.size_bytes, up=True)}")
    sheet = Sheet(lines=lines, tables=[("", summary_table(watched))])

    def as_json(_colour: bool, _width: int) -> str:
        from vramplan.report.serial import to_json

        return to_json("watch", watch_result(watched, plan))

    writers = {
        "table": lambda colour, width: draw_sheet(sheet, colour, width),
        "markdown": lambda _colour, _width: mark_sheet(sheet),
        "json": as_json,
    }
    write_result(args, writers)


def _read_budget(text: str) -> int:
    from vramplan.units import parse_size

    return parse_size(text)


def _read_seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0.01 <= seconds <= 10_000_000:
        raise UsageError(f"not a time in seconds: {text!r}", hint="from 0.01 on, such as 0.5")
    return seconds


def _read_count(text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text[:12]) < 1:
        raise UsageError(f"not a number of looks: {text!r}")
    return int(text[:12])
