"""``vramplan check``: a verdict per pipeline and card."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from pathlib import Path

from vramplan.ask import check
from vramplan.ask.cards import LOCAL, LOCAL_TOGETHER, drawn_cards
from vramplan.commands import arguments
from vramplan.commands.output import remark, show
from vramplan.commands.progress import progress
from vramplan.errors import UsageError
from vramplan.model import VerdictKind
from vramplan.quick_dataclass import replace
from vramplan.report import verdicts
from vramplan.settings import format_setting
from vramplan.units import MIB

WORSE = "worse"
FORMATS = ("table", "json", "markdown", "html", "pdf", "png")


def configure(parser: ArgumentParser) -> None:
    """Say what ``check`` takes."""
    arguments.describe(parser, "check")
    parser.usage = "%(prog)s [TARGET ...] [--card CARD ...] [option ...]"
    parser.add_argument(
        "targets",
        nargs="*",
        metavar="TARGET",
        help=f"{arguments.TARGET_HELP}. Without one: what ./vramplan.yaml describes",
    )
    arguments.add_cards(parser, "this machine's GPUs, or 8gb and 12gb where it has none")
    parser.add_argument(
        "--together",
        action="store_true",
        help="judge the targets loaded side by side on one card, a process each",
    )
    arguments.add_budget(parser, margin=None)
    parser.add_argument(
        "--fail-on",
        choices=[*(kind.value for kind in VerdictKind if kind is not VerdictKind.FITS), WORSE],
        help="the mildest verdict that exits with 1: tight, offload or oom (default: offload); or "
        "worse: only one that is worse than in --against, or new and fails",
    )
    parser.add_argument(
        "--against",
        metavar="FILE",
        help="say too what has changed since an earlier answer: FILE is the JSON of vramplan "
        "check, such as that of the branch a change is for",
    )
    parser.add_argument(
        "--largest",
        action="store_true",
        help="say too which image, batch, context and number of frames is the largest that fits, "
        "with all else as it is; up to a quarter of a second longer for each verdict",
    )
    arguments.add_projector(parser)
    parser.add_argument(
        "--engine-check",
        action="store_true",
        help="let the real llama.cpp (the extra engine) plan each .gguf file for each card, and "
        "show its layers and buffers beside ours; no card and no weights are needed (Linux)",
    )
    arguments.add_settings(parser)
    arguments.add_output(parser, FORMATS)
    arguments.add_cache(parser)
    arguments.add_recording(parser)
    arguments.add_common(parser)


def run(args: Namespace) -> int:
    """Judge, write the verdicts, and return 1 where one of them is a failure."""
    if args.engine_check:
        _refuse_engine(args)
    for option, is_given in (("--largest", args.largest), ("--against", args.against)):
        if is_given and arguments.is_page(args):
            raise UsageError(f"{option} has no page", hint="leave --format html out")
    if args.fail_on == WORSE and args.against is None:
        raise UsageError("--fail-on worse needs --against", hint="--against BASE.json")
    question = _with_base(args, replace(_read(args), wants_largest=args.largest))
    with progress(args) as step:
        answer = check.answer(question, step, asks_engine=args.engine_check)
    cards = drawn_cards(question.choices)
    show(
        args,
        lambda look: verdicts.render(
            answer.verdicts,
            answer.estimates,
            cards,
            look,
            witnesses=answer.witnesses,
            largest=answer.largest,
            compared=answer.compared,
            following=_following(args, question, answer),
        ),
    )
    if any(one.contradictions for one in answer.witnesses):
        return 1
    if args.fail_on == WORSE:
        return int(answer.is_worse(question.fail_on))
    return int(answer.is_failure(question.fail_on))


def _with_base(args: Namespace, question: check.Question) -> check.Question:
    """Return the question with the earlier answer that it is compared with, if there is one."""
    if args.against is None:
        return question
    from vramplan.ask.against import read_base

    return replace(question, base=read_base(Path(args.against)), base_place=args.against)


def _following(args: Namespace, question: check.Question, answer: check.Answer) -> list[str]:
    """Return the commands that say what to change about each verdict that fails."""
    failed = [one for one in answer.verdicts if answer.fails(one, question.fail_on)]
    if not failed:
        return []
    import shlex

    given = _given(args)
    if question.is_project:
        return [shlex.join(["vramplan", "plan", *given])]
    return [
        shlex.join(
            [
                *("vramplan", "plan"),
                *(member.text for member in verdict.asked.members or (verdict.asked,)),
                *(["--together"] if verdict.asked.members else []),
                *("--card", _card(verdict.card), *given),
            ]
        )
        for verdict in failed
    ]


def _card(label: str) -> str:
    """Return the CARD that a verdict's card is; of this machine's several all are meant."""
    return LOCAL if label.startswith(f"{LOCAL}:") and label != LOCAL_TOGETHER else label


def _size(size_bytes: int) -> str:
    return f"{size_bytes}B" if size_bytes % MIB else f"{size_bytes // MIB}MiB"


def _given(args: Namespace) -> list[str]:
    """Return the options that a plan must have too; settings stand behind each TARGET."""
    sizes = (("--margin", args.margin), ("--other", args.other))
    given = [w for option, size in sizes if size is not None for w in (option, _size(size))]
    given += [word for folder in args.catalog for word in ("--catalog", folder)]
    given += [] if args.mmproj is None else ["--mmproj", args.mmproj]
    if not args.targets:
        given += [word for card in args.cards for word in ("--card", card)]
        given += ["--together"] if args.together else []
        settings = arguments.given_settings(args).items()
        given += [w for k, v in settings for w in ("--set", f"{k}={format_setting(k, v)}")]
        given += ["--fail-on", args.fail_on] if args.fail_on not in (None, WORSE) else []
    return given


def _refuse_engine(args: Namespace) -> None:
    if arguments.is_page(args):
        raise UsageError("--engine-check has no page", hint="leave --format html out")
    if args.together:
        raise UsageError("--engine-check looks at each target alone", hint="leave --together out")


def _read(args: Namespace) -> check.Question:
    settings = arguments.given_settings(args)
    fail_on = VerdictKind(args.fail_on) if args.fail_on not in (None, WORSE) else None
    if not args.targets:
        if args.mmproj is not None:
            raise UsageError("--mmproj belongs to one model file", hint="name it as TARGET")
        return check.read_project(
            args.cards,
            settings,
            remark,
            catalog=args.catalog,
            is_together=args.together,
            margin_bytes=args.margin,
            other_bytes=args.other,
            fail_on=fail_on,
        )
    return check.read_targets(
        args.targets,
        args.cards,
        settings,
        remark,
        catalog=args.catalog,
        mmproj=args.mmproj,
        is_together=args.together,
        margin_bytes=args.margin or 0,
        other_bytes=args.other,
        fail_on=fail_on,
    )
