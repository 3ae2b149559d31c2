"""``vramplan estimate``: the budget of one pipeline, line by line and phase by phase."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from vramplan.ask.cards import choose_cards, drawn_cards
from vramplan.ask.targets import Job, folders_of, given_settings, make_jobs, open_catalog
from vramplan.catalog import CardChoice
from vramplan.commands import arguments
from vramplan.commands.output import write_result
from vramplan.engines.door import DEFAULT_CAPABILITY
from vramplan.errors import UsageError
from vramplan.model import Card, Estimate

if TYPE_CHECKING:
    from vramplan.compare.witness import Witness

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
    catalog = open_catalog(args)
    jobs = make_jobs([args.target], catalog, given_settings(args), args.mmproj)
    choices = choose_cards(args.cards, catalog)
    folders = folders_of(jobs, catalog)
    estimate = _estimate_worst(jobs[0], choices, folders)
    witness = _ask_engine(args, jobs[0]) if args.engine_check else None
    shown = _beside_published(jobs[0], estimate, folders)
    _write(args, shown, drawn_cards(choices), witness)
    return 0


def _ask_engine(args: Namespace, job: Job) -> Witness:
    """Return the engine's buffers beside ours; raises UsageError for what is no model file."""
    from vramplan.engines.ggml.witness.side_by_side import ask_witness

    if args.format == "html" or (args.output or "").lower().endswith((".html", ".htm")):
        raise UsageError("--engine-check has no page", hint="leave --format html out")
    return ask_witness(job, args.mmproj)


def _estimate_worst(job: Job, choices: Sequence[CardChoice], folders: Sequence[Path]) -> Estimate:
    """Return the estimate on the architecture, among the cards', that needs most."""
    from vramplan.engines.door import estimate

    known = [card.compute_capability for choice in choices for card in choice.candidates]
    capabilities = list(dict.fromkeys(known)) or [DEFAULT_CAPABILITY]
    found = [
        estimate(job.pipeline, job.settings, capability, folders=folders)
        for capability in capabilities
    ]
    worst = max(found, key=lambda one: (one.need.band.expected_bytes, one.need.band.high_bytes))
    if not known:
        said = f"compute capability {DEFAULT_CAPABILITY} is assumed: no card was named"
    elif len(capabilities) > 1:
        others = ", ".join(one for one in capabilities if one != worst.compute_capability)
        said = (
            f"of the cards' architectures, compute capability {worst.compute_capability} needs "
            f"most; the others are {others}"
        )
    else:
        return worst
    return replace(worst, notes=(said, *worst.notes))


def _beside_published(job: Job, estimate: Estimate, folders: Sequence[Path]) -> Estimate:
    """Return the estimate with what others published, each beside ours at its own settings."""
    if job.pipeline.header is not None:  # nobody published anything about somebody's file
        return estimate
    from vramplan.ask.published import compare_published

    return replace(estimate, published=compare_published(job.pipeline, folders))


def _write(
    args: Namespace, estimate: Estimate, cards: Sequence[Card], witness: Witness | None
) -> None:
    def as_table(colour: bool, width: int) -> str:
        from vramplan.report.tables import render_estimate

        drawn = render_estimate(estimate, colour=colour, width=width, cards=cards)
        if witness is None:
            return drawn
        from vramplan.report.engine_witness import draw_witness

        return drawn + draw_witness(witness, colour, width)

    def as_json(_colour: bool, _width: int) -> str:
        from vramplan.report.serial import estimate_result, to_json

        result = estimate_result(estimate)
        if witness is not None:
            from vramplan.report.engine_witness import witness_object

            result["engine"] = witness_object(witness)
        return to_json("estimate", result)

    def as_markdown(_colour: bool, _width: int) -> str:
        from vramplan.report.markdown import render_estimate

        marked = render_estimate(estimate, cards=cards)
        if witness is None:
            return marked
        from vramplan.report.engine_witness import mark_witness

        return f"{marked}\n{mark_witness(witness)}"

    def as_html(_colour: bool, _width: int) -> str:
        from vramplan.report.html import render_report

        return render_report([estimate], [], cards)

    writers = {"table": as_table, "json": as_json, "markdown": as_markdown, "html": as_html}
    write_result(args, writers)
