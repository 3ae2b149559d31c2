"""``vramplan report``: verdicts and budgets of many pipelines as one page."""

from __future__ import annotations

import sys
from argparse import ArgumentParser, Namespace

from vramplan.ask.cards import DEFAULT_CLASSES, drawn_cards
from vramplan.ask.report import read_report
from vramplan.commands import arguments
from vramplan.commands.left_out import saying_what_is_left_out
from vramplan.commands.output import choose_format, remark, show
from vramplan.commands.progress import progress
from vramplan.errors import UsageError
from vramplan.report import fit

FORMATS = ("html", "pdf", "png", "markdown", "json", "table")


def configure(parser: ArgumentParser) -> None:
    """Say what ``report`` takes."""
    arguments.describe(parser, "report")
    parser.usage = "%(prog)s [TARGET ...] [--card CARD ...] -o FILE [option ...]"
    parser.add_argument(
        "targets",
        nargs="*",
        metavar="TARGET",
        help=f"{arguments.TARGET_HELP}. Without one: what ./vramplan.yaml describes, else every "
        "pipeline of the catalogue, with those of the settings that it has; what has no tape is "
        "counted then, unless its recording is remembered",
    )
    parser.add_argument(
        "--all",
        action="store_true",
        dest="is_all",
        help="every pipeline of the catalogue, whatever ./vramplan.yaml describes",
    )
    arguments.add_cards(
        parser, f"those of ./vramplan.yaml, where it is read, else {' and '.join(DEFAULT_CLASSES)}"
    )
    arguments.add_budget(parser, margin=None)
    arguments.add_projector(parser)
    arguments.add_settings(parser)
    arguments.add_output(parser, FORMATS, default="html")
    arguments.add_cache(parser)
    arguments.add_recording(parser)
    arguments.add_common(parser)


def run(args: Namespace) -> int:
    """Write the report; return 0."""
    is_page = choose_format(args) == "html"
    if is_page and args.output in (None, "-") and sys.stdout.isatty():
        hint = "write it to a file: vramplan report -o fit.html"
        raise UsageError("a page of HTML is not for a terminal", hint=hint)
    question, answered = read_report(
        args.targets,
        args.cards,
        arguments.given_settings(args),
        remark,
        is_all=args.is_all,
        catalog=args.catalog,
        mmproj=args.mmproj,
        margin_bytes=args.margin,
        other_bytes=args.other,
    )
    with saying_what_is_left_out(), progress(args) as step:
        answer = answered(step)
    cards = drawn_cards(question.choices)
    show(
        args,
        lambda look: fit.render(answer.verdicts, answer.estimates, cards, look, words=args.words),
    )
    return 0
