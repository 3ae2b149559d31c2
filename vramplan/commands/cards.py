"""``vramplan cards``: the cards that something can be judged on."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace

from vramplan.ask.cards import Shown, look_up
from vramplan.ask.listing import CardFilter, find_cards, is_card, read_bound
from vramplan.ask.targets import open_catalog
from vramplan.commands import arguments
from vramplan.commands.output import remark, show
from vramplan.report import cards

FORMATS = ("table", "json", "markdown")


def configure(parser: ArgumentParser) -> None:
    """Say what ``cards`` takes."""
    arguments.describe(parser, "cards")
    parser.usage = "%(prog)s [CARD | WORD ...] [option ...]"
    parser.add_argument(
        "sought",
        nargs="*",
        metavar="CARD | WORD",
        help="a card's name (rtx-3060-12gb), a class (8gb), a size (11.6GiB) or auto; or words "
        "that the cards are called, such as laptop, datacenter, ti or a compute capability",
    )
    for name, what in (("min", "at least"), ("max", "at most")):
        parser.add_argument(
            f"--{name}",
            metavar="SIZE",
            help=f"only cards of {what} this class (12gb), or with {what} this much usable "
            "(11.6GiB)",
        )
    arguments.add_output(parser, FORMATS)
    arguments.add_common(parser)


def run(args: Namespace) -> int:
    """Write the cards; return 0."""
    found = _find(args)
    show(args, lambda look: cards.render(found.cards, found.judged, found.lines, look))
    return 0


def _find(args: Namespace) -> Shown:
    catalog = open_catalog(args.catalog)
    is_filtered = args.min or args.max
    if not args.sought and not is_filtered:
        return look_up(None, catalog, remark)
    if not is_filtered and is_card(" ".join(args.sought), catalog):
        return look_up(" ".join(args.sought), catalog, remark)
    least = read_bound("--min", args.min) if args.min else (None, None)
    most = read_bound("--max", args.max) if args.max else (None, None)
    wanted = CardFilter(
        words=tuple(args.sought),
        least_bytes=least[0],
        least_gib=least[1],
        most_bytes=most[0],
        most_gib=most[1],
    )
    return find_cards(wanted, catalog)
