"""``vramplan estimate``: the budget of one pipeline, line by line and phase by phase."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace

from vramplan.ask.cards import drawn_cards
from vramplan.ask.estimate import estimate_target
from vramplan.catalog.cards import DEFAULT_CAPABILITY
from vramplan.commands import arguments
from vramplan.commands.output import remark, show
from vramplan.commands.progress import progress
from vramplan.errors import UsageError
from vramplan.hearing import heard_by
from vramplan.report import estimate

FORMATS = ("table", "json", "markdown", "html", "pdf", "png")


def configure(parser: ArgumentParser) -> None:
    """Say what ``estimate`` takes."""
    arguments.describe(parser, "estimate")
    parser.usage = "%(prog)s TARGET [--card CARD ...] [option ...]"
    parser.add_argument("target", metavar="TARGET", help=arguments.TARGET_HELP)
    arguments.add_cards(
        parser,
        f"compute capability {DEFAULT_CAPABILITY} is assumed and no card's line is drawn. With "
        "several, the budget is that of the one on which the most is needed",
    )
    arguments.add_projector(parser)
    parser.add_argument(
        "--engine-check",
        action="store_true",
        help="ask the engine itself, and show its figures beside ours: of a .gguf file the real "
        "llama.cpp (its CPU build, the extra engine; weights may be a hole), of a pipeline the "
        "real torch, run once on the card that needs most, which is not there (the extra witness)",
    )
    arguments.add_settings(parser)
    arguments.add_output(parser, FORMATS)
    arguments.add_cache(parser)
    arguments.add_recording(parser)
    arguments.add_common(parser)


def run(args: Namespace) -> int:
    """Write the budget; return 1 where the engine itself contradicts it."""
    if args.engine_check and arguments.is_page(args):
        raise UsageError("--engine-check has no page", hint="leave --format html out")
    with progress(args) as step, heard_by(step):
        found = estimate_target(
            args.target,
            args.cards,
            arguments.given_settings(args),
            remark,
            catalog=args.catalog,
            mmproj=args.mmproj,
            asks_engine=args.engine_check,
        )
    cards = drawn_cards(found.choices)
    show(args, lambda look: estimate.render(found.estimate, cards, look, witness=found.witness))
    return int(found.witness is not None and bool(found.witness.contradictions))
