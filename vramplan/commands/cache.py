"""``vramplan cache``: what is remembered between runs."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from functools import partial

from vramplan.ask.cache import clear, look
from vramplan.commands import arguments
from vramplan.commands.output import show
from vramplan.report.cache import render

FORMATS = ("table", "json", "markdown")


def configure(parser: ArgumentParser) -> None:
    """Say what ``cache`` takes."""
    arguments.describe(parser, "cache")
    parser.usage = "%(prog)s [show|clear] [option ...]"
    parser.add_argument(
        "action",
        nargs="?",
        choices=("show", "clear"),
        default="show",
        help="show what is remembered (default), or forget all of it",
    )
    arguments.add_output(parser, FORMATS)
    arguments.add_common(parser)


def run(args: Namespace) -> int:
    """Show what there is, or remove it; return 0."""
    state = clear() if args.action == "clear" else look()
    show(args, partial(render, state))
    return 0
