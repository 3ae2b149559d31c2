"""``vramplan estimate``: the budget of one pipeline, line by line and phase by phase."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace

from vramplan.ask.cards import drawn_cards
from vramplan.ask.estimate import estimate_target
from vramplan.catalog.cards import DEFAULT_CAPABILITY
from vramplan.commands import arguments
from vramplan.commands.output import remark, show
from vramplan.errors import UsageError
from vramplan.report import estimate

FORMATS = ("table", "json", "markdown", "html")

_DESCRIPTION = (
    "Show what TARGET needs: its components' weights, each term with its band and its origin, the "
    "peaks of each phase, and what others published beside ours. Needs no GPU, no weights and no "
    "network."
)

_EPILOG = f"""\
origins, from the firmest to the weakest:
  `exact` counted from shapes;
  `replayed` a recorded tape through a model of the allocator;
  `measured` on a GPU that is named;
  `published` somebody else's figure or source code, named;
  `assumed` with the reason.

The need is the least a card must offer for the whole run to complete, and decides the verdict of
`vramplan check`; the peak is what nvidia-smi shows when there is room.

examples:
  the budget at the defaults:
    `vramplan estimate sd15`
  at other settings, against two cards:
    `vramplan estimate sd15 --image 1024x1024 --card 8gb --card rtx-4070`
  what tiling saves:
    `vramplan estimate sd15-vae --mode decode --image 2048 --vae-tiling on`
  a model file, and what the real engine says of it:
    `vramplan estimate model.gguf --engine-check`
  for a script:
    `vramplan estimate llava:7b --context 8192 --json`

exit codes: `0` shown; `3` no GPU for --card auto; {arguments.COMMON_EXITS}
"""


def configure(parser: ArgumentParser) -> None:
    """Say what ``estimate`` takes."""
    parser.description = _DESCRIPTION
    parser.epilog = _EPILOG
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
        help="ask the real llama.cpp (its CPU build, the extra engine) for its buffers of a .gguf "
        "file, and show them beside ours for that build; weights may be a hole",
    )
    arguments.add_settings(parser)
    arguments.add_output(parser, FORMATS)
    arguments.add_common(parser)


def run(args: Namespace) -> int:
    """Write the budget; return 0."""
    if args.engine_check and arguments.is_page(args):
        raise UsageError("--engine-check has no page", hint="leave --format html out")
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
    return 0
