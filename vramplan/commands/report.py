"""``vramplan report``: verdicts and budgets of many pipelines as one page."""

from __future__ import annotations

import sys
from argparse import ArgumentParser, Namespace
from contextlib import nullcontext

from vramplan.ask import check
from vramplan.ask.cards import DEFAULT_CLASSES, drawn_cards
from vramplan.commands import arguments
from vramplan.commands.output import choose_format, remark, show
from vramplan.commands.progress import progress
from vramplan.errors import UsageError
from vramplan.report import fit
from vramplan.searching import searching

FORMATS = ("html", "pdf", "png", "markdown", "json", "table")


def configure(parser: ArgumentParser) -> None:
    """Say what ``report`` takes."""
    arguments.describe(parser, "report")
    parser.usage = "%(prog)s [TARGET ...] [--card CARD ...] -o FILE [option ...]"
    parser.add_argument(
        "targets",
        nargs="*",
        metavar="TARGET",
        help=f"{arguments.TARGET_HELP}. Without one: every pipeline of the catalogue, with those "
        "of the settings that it has; what has no tape is counted, unless its recording is "
        "remembered",
    )
    arguments.add_cards(parser, " and ".join(DEFAULT_CLASSES))
    arguments.add_budget(parser)
    arguments.add_projector(parser)
    arguments.add_settings(parser)
    arguments.add_output(parser, FORMATS, default="html")
    arguments.add_cache(parser)
    arguments.add_common(parser)


def run(args: Namespace) -> int:
    """Write the report; return 0."""
    is_page = choose_format(args) == "html"
    if is_page and args.output in (None, "-") and sys.stdout.isatty():
        hint = "write it to a file: vramplan report -o fit.html"
        raise UsageError("a page of HTML is not for a terminal", hint=hint)
    if args.mmproj is not None and not args.targets:
        raise UsageError("--mmproj belongs to one model file", hint="name it as TARGET")
    question = _read(args)
    # of a whole catalogue what has no tape is counted: recording it would take half an hour
    with progress(args) as step, nullcontext() if args.targets else searching():
        answer = check.answer(question, step)
    cards = drawn_cards(question.choices)
    show(
        args,
        lambda look: fit.render(answer.verdicts, answer.estimates, cards, look, words=args.words),
    )
    return 0


def _read(args: Namespace) -> check.Question:
    settings, cards = arguments.given_settings(args), args.cards or DEFAULT_CLASSES
    taken = {"margin_bytes": args.margin, "other_bytes": args.other}
    if not args.targets:
        return check.read_catalog(cards, settings, remark, catalog=args.catalog, **taken)
    return check.read_targets(
        args.targets,
        cards,
        settings,
        remark,
        catalog=args.catalog,
        mmproj=args.mmproj,
        **taken,
    )
