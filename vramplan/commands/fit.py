"""``vramplan fit``: what runs on a card."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace

from vramplan.commands import arguments
from vramplan.commands.left_out import saying_what_is_left_out
from vramplan.commands.output import remark, show
from vramplan.commands.progress import progress
from vramplan.errors import UsageError
from vramplan.report import ranking

FORMATS = ("table", "json", "markdown")


def configure(parser: ArgumentParser) -> None:
    """Say what ``fit`` takes."""
    arguments.describe(parser, "fit")
    parser.usage = "%(prog)s [TARGET | FOLDER ...] [--card CARD] [option ...]"
    parser.add_argument(
        "models",
        nargs="*",
        metavar="TARGET|FOLDER",
        help=f"what is looked at too: a folder whose models, and those below it, are; or "
        f"{arguments.TARGET_HELP}",
    )
    arguments.add_cards(parser, "this machine's GPU; without one it must be named")
    parser.add_argument(
        "--only-named",
        "--only-folders",
        action="store_true",
        dest="only_named",
        help="look at these alone, not at the catalogue and the stores of Ollama and LM Studio",
    )
    parser.add_argument(
        "--pairs",
        action="store_true",
        help="say too which two of them fit side by side, a process each",
    )
    arguments.add_budget(parser)
    arguments.add_settings(parser)
    arguments.add_output(parser, FORMATS)
    arguments.add_cache(parser)
    arguments.add_common(parser)


def run(args: Namespace) -> int:
    """Write the ranking; return 1 where nothing in it fits."""
    from vramplan.ask.fit import rank, read_fit

    if args.only_named and not args.models:
        hint = "name a folder or a TARGET, such as: vramplan fit ~/models --only-named"
        raise UsageError("--only-named: nothing is named", hint=hint)
    question = read_fit(
        args.models,
        args.cards,
        arguments.given_settings(args),
        remark,
        catalog=args.catalog,
        only_named=args.only_named,
        margin_bytes=args.margin,
        other_bytes=args.other,
        wants_pairs=args.pairs,
    )
    with saying_what_is_left_out(), progress(args) as step:
        found = rank(question, step)
    show(args, lambda look: ranking.render(found, look))
    return int(not any(row.is_whole for row in found.rows))
