"""``vramplan cards``: the cards that something can be judged on."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from typing import TYPE_CHECKING

from vramplan.ask.cards import LOCAL, local_choices
from vramplan.ask.targets import open_catalog
from vramplan.commands import arguments
from vramplan.commands.output import remark, show
from vramplan.model import Card
from vramplan.report import cards

if TYPE_CHECKING:
    from vramplan.catalog import CardChoice, Catalog

FORMATS = ("table", "json", "markdown")

_DESCRIPTION = (
    "List the cards of the catalogue: capacity as NVML reports it, what is left of it after the "
    "system's reserve (usable), compute capability and memory bandwidth. With a CARD: what it "
    "stands for, and where its figures come from."
)

_EPILOG = f"""\
examples:
  every card:
    `vramplan cards`
  the cards of a class, and what a verdict on the class is judged at:
    `vramplan cards 8gb`
  this machine's GPUs, with what is free on them:
    `vramplan cards auto`

exit codes: `0` shown; `3` no GPU for auto; {arguments.COMMON_EXITS}
"""


def configure(parser: ArgumentParser) -> None:
    """Say what ``cards`` takes."""
    parser.description = _DESCRIPTION
    parser.epilog = _EPILOG
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
    catalog = open_catalog(args.catalog)
    if args.card is None:
        _write(args, tuple(catalog.cards.values()))
    elif args.card.strip().lower() == LOCAL:
        found = [card for choice in local_choices(catalog, remark) for card in choice.candidates]
        _write(args, found, lines=_sources(found))
    else:
        choice = catalog.card(args.card)
        members, judged = _members(choice, catalog)
        _write(args, members, judged, _about(choice, judged) or _sources(members))
    return 0


def _members(choice: CardChoice, catalog: Catalog) -> tuple[Sequence[Card], Sequence[Card]]:
    """Return the cards that a choice speaks of, and what a class or a size is judged at."""
    first = choice.candidates[0]
    if first.kind != "assumed":
        return choice.candidates, ()
    if choice.label != f"{first.class_gib}gb":
        return choice.candidates, choice.candidates
    members = [
        card
        for card in catalog.cards.values()
        if card.class_gib == first.class_gib and not card.shares_memory
    ]
    return members, choice.candidates


def _about(choice: CardChoice, judged: Sequence[Card]) -> list[str]:
    """Return what a class or a size is judged at, in words; nothing for a named card."""
    if not judged:
        return []
    capabilities = ", ".join(card.compute_capability for card in judged)
    return [
        f"{choice.label} is judged as {judged[0].source}",
        f"on each of the compute capabilities {capabilities}; the worst is shown",
    ]


def _sources(cards: Sequence[Card]) -> list[str]:
    return [f"{card.name}: {card.source}" for card in cards]


def _write(
    args: Namespace,
    found: Sequence[Card],
    judged: Sequence[Card] = (),
    lines: Sequence[str] = (),
) -> None:
    show(args, lambda look: cards.render(found, judged, lines, look))
