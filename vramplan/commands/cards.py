"""``vramplan cards``: the cards that something can be judged on."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace

from vramplan.ask.cards import look_up
from vramplan.ask.targets import open_catalog
from vramplan.commands import arguments
from vramplan.commands.output import remark, show
from vramplan.report import cards

FORMATS = ("table", "json", "markdown")


def configure(parser: ArgumentParser) -> None:
    """Say what ``cards`` takes."""
    arguments.describe(parser, "cards")
    parser.usage = "%(prog)s [CARD] [option ...]"
    parser.add_argument(
        "card",
        nargs="?",
        metavar="CARD",
        help="a card's name (rtx-3060-12gb), a class (8gb), a size (11.6GiB) or auto",
    )
    arguments.add_output(parser, FORMATS)
    arguments.add_common(parser)


def run(args: Namespace) -> int:
    """Write the cards; return 0."""
    found = look_up(args.card, open_catalog(args.catalog), remark)
    show(args, lambda look: cards.render(found.cards, found.judged, found.lines, look))
    return 0
