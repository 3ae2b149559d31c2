"""``vramplan report``: verdicts and budgets of many pipelines as one page."""

from __future__ import annotations

import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence

from vramplan.ask.cards import DEFAULT_CLASSES, choose_cards, drawn_cards
from vramplan.ask.check import Answer, judge_each
from vramplan.ask.targets import (
    folders_of,
    given_settings,
    make_jobs,
    make_lenient_jobs,
    open_catalog,
)
from vramplan.commands import arguments
from vramplan.commands.output import choose_format, write_result
from vramplan.errors import UsageError
from vramplan.model import Card

FORMATS = ("html", "markdown", "json", "table")

_DESCRIPTION = (
    "Write the fit report: the verdicts of every TARGET on every card, each pipeline's stacked "
    "budget against the cards' lines, the memory timeline by phase, and the assumptions. As HTML "
    "it is one file that needs no network."
)

_EPILOG = f"""\
examples:
  everything in the catalogue on two classes of card:
    `vramplan report -o fit.html`
  two pipelines on the cards of a fleet:
    `vramplan report sd15 llava:7b --card rtx-3060-12gb --card rtx-4070 -o fit.html`
  for a pull request:
    `vramplan report sd15 --card 8gb -o fit.md`

exit codes: `0` written, whatever the verdicts are (`vramplan check` is for scripts that want to
know); `3` no GPU for --card auto; {arguments.COMMON_EXITS}
"""


def configure(parser: ArgumentParser) -> None:
    """Say what ``report`` takes."""
    parser.description = _DESCRIPTION
    parser.epilog = _EPILOG
    parser.usage = "%(prog)s [TARGET ...] [--card CARD ...] -o FILE [option ...]"
    parser.add_argument(
        "targets",
        nargs="*",
        metavar="TARGET",
        help=f"{arguments.TARGET_HELP}. Without one: every pipeline of the catalogue, with those "
        "of the settings that it has",
    )
    arguments.add_cards(parser, " and ".join(DEFAULT_CLASSES))
    arguments.add_budget(parser)
    arguments.add_projector(parser)
    arguments.add_settings(parser)
    arguments.add_output(parser, FORMATS, default="html")
    arguments.add_common(parser)


def run(args: Namespace) -> int:
    """Write the report; return 0."""
    is_page = choose_format(args) == "html"
    if is_page and args.output in (None, "-") and sys.stdout.isatty():
        hint = "write it to a file: vramplan report -o fit.html"
        raise UsageError("a page of HTML is not for a terminal", hint=hint)
    catalog = open_catalog(args)
    settings = given_settings(args)
    if args.targets:
        jobs = make_jobs(args.targets, catalog, settings, args.mmproj)
    elif args.mmproj is not None:
        raise UsageError("--mmproj belongs to one model file", hint="name it as TARGET")
    else:
        jobs = make_lenient_jobs(list(catalog.pipelines.values()), settings, "the catalogue")
    choices = choose_cards(args.cards or DEFAULT_CLASSES, catalog)
    folders = folders_of(jobs, catalog)
    answer = judge_each(jobs, choices, folders, args.margin, args.other)
    _write(args, answer, drawn_cards(choices))
    return 0


def _write(args: Namespace, answer: Answer, cards: Sequence[Card]) -> None:
    verdicts, estimates = answer

    def as_html(_colour: bool, _width: int) -> str:
        import datetime as dt
        import shlex

        from vramplan.report.html import ReportMeta, render_report

        today = dt.datetime.now(dt.UTC).date()
        command = shlex.join(["vramplan", *args.words])
        meta = ReportMeta(command=command, created=today.isoformat())
        return render_report(estimates, verdicts, cards, meta)

    def as_json(_colour: bool, _width: int) -> str:
        from vramplan.report.serial import check_result, estimate_result, to_json

        result = check_result(verdicts)
        result["estimates"] = [estimate_result(estimate) for estimate in estimates]
        return to_json("report", result)

    def as_markdown(_colour: bool, _width: int) -> str:
        from vramplan.report import markdown
        from vramplan.report.verdict_rows import sections

        parts = [markdown.render_check(verdicts, estimates)]
        for section in sections([], estimates):
            if section.estimate is not None:
                parts.append(markdown.render_estimate(section.estimate, cards=cards))
        return "\n".join(parts)

    def as_table(colour: bool, width: int) -> str:
        from vramplan.report import tables
        from vramplan.report.verdict_rows import sections

        parts = [tables.render_check(verdicts, estimates, colour=colour, width=width)]
        for section in sections([], estimates):
            if section.estimate is not None:
                parts.append(
                    tables.render_estimate(
                        section.estimate, colour=colour, width=width, cards=cards
                    )
                )
        return "\n\n".join(parts)

    writers = {"table": as_table, "json": as_json, "markdown": as_markdown, "html": as_html}
    write_result(args, writers)
