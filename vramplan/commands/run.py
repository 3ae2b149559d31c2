"""``vramplan run``: any PyTorch program on a card that is not there."""

from __future__ import annotations

import sys
from argparse import ArgumentParser, Namespace
from functools import partial

from vramplan.ask.run import Order, cards_to_try, check_order, classes, find_smallest, try_each
from vramplan.ask.targets import open_catalog
from vramplan.commands import arguments
from vramplan.commands.output import choose_format, note, remark, show
from vramplan.errors import UsageError, VramplanError
from vramplan.interrupts import ending_tidily
from vramplan.report.trials import render

FORMATS = ("table", "json", "markdown", "html", "pdf", "png")


def configure(parser: ArgumentParser) -> None:
    """Say what ``run`` takes."""
    arguments.describe(parser, "run")
    parser.usage = "%(prog)s --card CARD [--card CARD ...] [option ...] -- PROGRAM [ARGUMENT ...]"
    parser.add_argument(
        "program",
        nargs="*",
        metavar="PROGRAM",
        help="what is run, with its arguments, after --; unchanged, with the Python it names",
    )
    arguments.add_cards(parser, "--smallest-card must be given")
    parser.add_argument(
        "--smallest-card",
        action="store_true",
        help="find the smallest class of card (of those of --card, where given) on which it "
        "completes",
    )
    parser.add_argument(
        "--all",
        action="store_true",
        help="try a class on every compute capability among its cards, not on the commonest alone",
    )
    parser.add_argument(
        "--gpus", type=int, default=1, metavar="N", help="pretend so many of the card (default: 1)"
    )
    parser.add_argument(
        "--weights",
        choices=("real", "none"),
        default="real",
        help="none: meet from_pretrained of diffusers and transformers with configs alone (of a "
        "folder, the hub's cache or the catalogue), nothing downloaded or held; default: real",
    )
    arguments.add_output(parser, FORMATS)
    arguments.add_common(parser)


def run(args: Namespace) -> int:
    """Run the program, say what became of it; 1 where memory ended, 2 where it failed itself."""
    if not args.cards and not args.smallest_card:
        raise UsageError("no card was named", hint="--card 8gb, or --smallest-card to find one")
    catalog = open_catalog(args.catalog)
    cards = cards_to_try(args.cards, catalog, remark, wants_all=args.all) or classes(catalog)
    is_product = choose_format(args) != "table" and args.output in (None, "-")
    order = Order(
        command=tuple(args.program),
        gpus=args.gpus,
        output=sys.stderr if is_product else None,  # stdout is the product's
        known=tuple(catalog.pipelines.values()) if args.weights == "none" else None,
    )
    check_order(order, cards)

    def tell(step: str) -> None:
        if not args.quiet:  # a line that changes would be in the way of what the program prints
            note(f"note: {step}")

    with ending_tidily():
        answer = (find_smallest if args.smallest_card else try_each)(order, cards, tell)
    seen = partial(render, answer.trials, smallest=answer.smallest, seeks=answer.seeks)
    show(args, partial(seen, command=order.command))
    return VramplanError.exit_code if answer.has_failed else int(not answer.fits)
