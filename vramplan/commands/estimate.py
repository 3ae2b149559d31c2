"""``vramplan estimate``: the budget of one pipeline, line by line and phase by phase."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from vramplan.catalog import CardChoice
from vramplan.commands import arguments
from vramplan.commands.choices import choose_cards, drawn_cards
from vramplan.commands.output import write_result
from vramplan.commands.targets import Job, folders_of, given_settings, make_jobs, open_catalog
from vramplan.estimate.estimator import DEFAULT_CAPABILITY
from vramplan.model import Card, Estimate

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
    _write(args, _beside_published(jobs[0], estimate, folders), drawn_cards(choices))
    return 0


def _estimate_worst(job: Job, choices: Sequence[CardChoice], folders: Sequence[Path]) -> Estimate:
    """Return the estimate on the architecture, among the cards', that needs most."""
    from vramplan.estimate.estimator import estimate

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
    from vramplan.estimate.published import compare_published

    return replace(estimate, published=compare_published(job.pipeline, folders))


def _write(args: Namespace, estimate: Estimate, cards: Sequence[Card]) -> None:
    def as_table(colour: bool, width: int) -> str:
        from vramplan.report.tables import render_estimate

        return render_estimate(estimate, colour=colour, width=width, cards=cards)

    def as_json(_colour: bool, _width: int) -> str:
        from vramplan.report.serial import estimate_result, to_json

        return to_json("estimate", estimate_result(estimate))

    def as_markdown(_colour: bool, _width: int) -> str:
        from vramplan.report.markdown import render_estimate

        return render_estimate(estimate, cards=cards)

    def as_html(_colour: bool, _width: int) -> str:
        from vramplan.report.html import render_report

        return render_report([estimate], [], cards)

    writers = {"table": as_table, "json": as_json, "markdown": as_markdown, "html": as_html}
    write_result(args, writers)
