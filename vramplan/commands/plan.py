"""``vramplan plan``: what makes it fit, and the largest and smallest that does."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import Callable

from vramplan.commands import arguments
from vramplan.commands.left_out import saying_what_is_left_out
from vramplan.commands.output import remark, show
from vramplan.commands.progress import progress
from vramplan.errors import UsageError
from vramplan.model import VerdictKind
from vramplan.quick_typing import Any
from vramplan.report import plan as report
from vramplan.setting_values import SIZES, SettingValue

Remark = Callable[[str], None]

FORMATS = ("table", "json", "markdown")
ACCEPTED = (VerdictKind.FITS.value, VerdictKind.TIGHT.value)


def configure(parser: ArgumentParser) -> None:
    """Say what ``plan`` takes."""
    arguments.describe(parser, "plan")
    parser.usage = "%(prog)s [TARGET | TARGET TARGET ... --together] [--card CARD] [option ...]"
    parser.add_argument(
        "targets",
        nargs="*",
        metavar="TARGET",
        help=f"{arguments.TARGET_HELP}. Without one: all of ./vramplan.yaml that fails",
    )
    arguments.add_cards(parser, "this machine's GPU; without one it must be named")
    parser.add_argument(
        "--together",
        action="store_true",
        help="make the targets fit side by side on the card, a process each; any of them may be "
        "changed",
    )
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
        help="the mildest verdict that exits with 1 where it is the best that there is: tight, "
        "offload or oom (default: offload)",
    )
    arguments.add_budget(parser, margin=None)
    arguments.add_projector(parser)
    arguments.add_settings(parser)
    arguments.add_output(parser, FORMATS)
    arguments.add_cache(parser)
    arguments.add_recording(parser)
    arguments.add_common(parser)


def run(args: Namespace) -> int:
    """Write the plan, or those of the project; return 1 where nothing makes it fit."""
    if not args.targets:
        return _run_project(args)
    if len(args.targets) > 1 and not args.together:
        hint = "--together plans for all of them side by side; else name one after the other"
        raise UsageError("a plan is for one target", hint=hint)
    return _run_together(args) if args.together else _run_one(args)


def _run_one(args: Namespace) -> int:
    from vramplan.ask.plan import find_plan, read_plan

    question = read_plan(args.targets[0], *_asked(args), **_taken(args))
    if args.size and args.size not in question.job.settings:
        has = ", ".join(size for size in SIZES if size in question.job.settings)
        hint = f"it has: {has}" if has else None
        name = question.job.pipeline.name
        raise UsageError(f"--max {args.size}: {name} has no {args.size}", hint=hint)
    with saying_what_is_left_out(), progress(args) as step:
        if args.size:
            plan = find_plan(question, step, (args.size,), with_options=False)
        else:
            plan = find_plan(question, step)
    if args.size and args.size not in plan.largest:
        name = question.job.pipeline.name
        if args.size == "image":
            raise UsageError(f"--max image: {name} makes one image of every size that it is given")
        hint = "with torch, diffusers and transformers installed it is recorded here, and known"
        raise UsageError(f"--max {args.size}: what is known of {name} does not count it", hint=hint)
    show(args, lambda look: report.render(plan, look, only=args.size))
    if args.size:
        return int(plan.largest[args.size] is None)
    return int(_fails(args, plan.best))


def _run_together(args: Namespace) -> int:
    from vramplan.ask.plan_together import find_joint_plan, read_joint_plan

    if args.size:
        raise UsageError(f"--max {args.size} is for one target", hint="leave --together out")
    question = read_joint_plan(args.targets, *_asked(args), **_taken(args))
    with saying_what_is_left_out(), progress(args) as step:
        plan = find_joint_plan(question, step)
    show(args, lambda look: report.render(plan, look))
    return int(_fails(args, plan.best))


def _run_project(args: Namespace) -> int:
    from vramplan.ask.check import read_project
    from vramplan.ask.plan_project import find_project_plans

    if args.size or args.mmproj:
        option = f"--max {args.size}" if args.size else "--mmproj"
        raise UsageError(f"{option} is for one target", hint="name it: vramplan plan TARGET")
    question = read_project(
        *_asked(args),
        catalog=args.catalog,
        is_together=args.together,
        margin_bytes=args.margin,
        other_bytes=args.other,
        fail_on=VerdictKind(args.fail_on) if args.fail_on else None,
    )
    with saying_what_is_left_out(), progress(args) as step:
        found = find_project_plans(question, VerdictKind(args.accept), step)
    show(args, lambda look: report.render_project(found.plans, found.judged, look))
    return int(any(plan.best.rank >= question.fail_on.rank for plan in found.plans))


def _asked(args: Namespace) -> tuple[list[str], dict[str, SettingValue], Remark]:
    return args.cards, arguments.given_settings(args), remark


def _taken(args: Namespace) -> dict[str, Any]:
    return {
        "catalog": args.catalog,
        "mmproj": args.mmproj,
        "margin_bytes": args.margin or 0,
        "other_bytes": args.other,
        "worst": VerdictKind(args.accept),
    }


def _fails(args: Namespace, best: VerdictKind) -> bool:
    worst = VerdictKind(args.fail_on) if args.fail_on else VerdictKind.OFFLOAD
    return best.rank >= worst.rank
