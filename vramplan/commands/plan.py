"""``vramplan plan``: what makes it fit, and the largest and smallest that does."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace

from vramplan.commands import arguments
from vramplan.commands.output import remark, show
from vramplan.commands.progress import progress
from vramplan.errors import UsageError
from vramplan.model import VerdictKind
from vramplan.report import plan as report
from vramplan.settings import SIZES

FORMATS = ("table", "json", "markdown")
ACCEPTED = (VerdictKind.FITS.value, VerdictKind.TIGHT.value)


def configure(parser: ArgumentParser) -> None:
    """Say what ``plan`` takes."""
    arguments.describe(parser, "plan")
    parser.usage = "%(prog)s TARGET [--card CARD] [option ...]"
    parser.add_argument("target", metavar="TARGET", help=arguments.TARGET_HELP)
    arguments.add_cards(parser, "this machine's GPU; without one it must be named")
    parser.add_argument(
        "--max",
        choices=SIZES,
        dest="size",
        help="find only the largest image, batch, context or number of frames that fits, with "
        "everything else as it is",
    )
    parser.add_argument(
        "--accept",
        choices=ACCEPTED,
        default=ACCEPTED[0],
        help="the worst verdict that is good enough (default: fits; where no change brings that, "
        "those that are tight are shown)",
    )
    parser.add_argument(
        "--fail-on",
        choices=[kind.value for kind in VerdictKind if kind is not VerdictKind.FITS],
        default=VerdictKind.OFFLOAD.value,
        help="the mildest verdict that exits with 1 where it is the best that there is: tight, "
        "offload or oom (default: offload)",
    )
    arguments.add_budget(parser)
    arguments.add_projector(parser)
    arguments.add_settings(parser)
    arguments.add_output(parser, FORMATS)
    arguments.add_common(parser)


def run(args: Namespace) -> int:
    """Write the plan; return 1 where nothing makes it fit."""
    from vramplan.ask.plan import find_plan, read_plan

    question = read_plan(
        args.target,
        args.cards,
        arguments.given_settings(args),
        remark,
        catalog=args.catalog,
        mmproj=args.mmproj,
        margin_bytes=args.margin,
        other_bytes=args.other,
        worst=VerdictKind(args.accept),
    )
    if args.size and args.size not in question.job.settings:
        has = ", ".join(size for size in SIZES if size in question.job.settings)
        hint = f"it has: {has}" if has else None
        name = question.job.pipeline.name
        raise UsageError(f"--max {args.size}: {name} has no {args.size}", hint=hint)
    with progress(args) as step:
        if args.size:
            plan = find_plan(question, step, (args.size,), with_options=False)
        else:
            plan = find_plan(question, step)
    show(args, lambda look: report.render(plan, look, only=args.size))
    if args.size:
        return int(plan.largest[args.size] is None)
    order = list(VerdictKind)
    return int(order.index(plan.best) >= order.index(VerdictKind(args.fail_on)))
