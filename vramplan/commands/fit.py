"""``vramplan fit``: what runs on a card."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace

from vramplan.commands import arguments
from vramplan.commands.output import remark, show
from vramplan.commands.progress import progress
from vramplan.errors import UsageError
from vramplan.report import ranking

FORMATS = ("table", "json", "markdown")


def configure(parser: ArgumentParser) -> None:
    """Say what ``fit`` takes."""
    arguments.describe(parser, "fit")
    parser.usage = "%(prog)s [FOLDER ...] [--card CARD] [option ...]"
    parser.add_argument(
        "folders",
        nargs="*",
        metavar="FOLDER",
        help="a folder whose .gguf files, and those below it, are looked at too",
    )
    arguments.add_cards(parser, "this machine's GPU; without one it must be named")
    parser.add_argument(
        "--only-folders",
        action="store_true",
        help="leave out the catalogue, and the stores of Ollama and LM Studio",
    )
    arguments.add_budget(parser)
    arguments.add_settings(parser)
    arguments.add_output(parser, FORMATS)
    arguments.add_common(parser)


def run(args: Namespace) -> int:
    """Write the ranking; return 1 where nothing in it fits."""
    from vramplan.ask.fit import rank, read_fit

    if args.only_folders and not args.folders:
        raise UsageError("--only-folders: no folder is named", hint="vramplan fit FOLDER")
    question = read_fit(
        args.folders,
        args.cards,
        arguments.given_settings(args),
        remark,
        catalog=args.catalog,
        only_folders=args.only_folders,
        margin_bytes=args.margin,
        other_bytes=args.other,
    )
    with progress(args) as step:
        found = rank(question, step)
    show(args, lambda look: ranking.render(found, look))
    return int(not any(row.is_whole for row in found.rows))
