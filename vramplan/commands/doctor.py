"""``vramplan doctor``: what is installed, what is missing and what is stale."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from functools import partial

from vramplan.ask.doctor import examine
from vramplan.commands import arguments
from vramplan.commands.output import show
from vramplan.errors import VramplanError
from vramplan.report.doctor import render

FORMATS = ("table", "json", "markdown")


def configure(parser: ArgumentParser) -> None:
    """Say what ``doctor`` takes."""
    arguments.describe(parser, "doctor")
    parser.usage = "%(prog)s [option ...]"
    arguments.add_output(parser, FORMATS)
    arguments.add_common(parser)


def run(args: Namespace) -> int:
    """Write the findings; return 2 where one of them is broken."""
    findings = list(examine(args.catalog))
    show(args, partial(render, findings))
    return VramplanError.exit_code if any(one.is_broken for one in findings) else 0
