"""What it is deployed on: CARDs of the command line, and this machine's own GPUs."""

from __future__ import annotations

from collections.abc import Sequence

from vramplan.catalog import CardChoice, Catalog
from vramplan.catalog.cards import group_of
from vramplan.catalog.multiprocessors import find_printed
from vramplan.engines.door import Remark
from vramplan.errors import MissingError
from vramplan.model import Card
from vramplan.quick_dataclass import dataclass, replace
from vramplan.quick_typing import TYPE_CHECKING
from vramplan.units import GIB, MIB

if TYPE_CHECKING:
    from vramplan.probe.nvml import Gpu

LOCAL = "auto"
#: all of them together, as one engine sees them
LOCAL_TOGETHER = "auto:all"
#: what is judged where nobody names a card and this machine has none
DEFAULT_CLASSES = ("8gb", "12gb")


def choose_cards(texts: Sequence[str], catalog: Catalog, remark: Remark) -> list[CardChoice]:
    """Return what each CARD stands for, each once; ``auto`` is one choice per GPU.

    Raises UsageError for an unknown card and MissingError for ``auto`` without a GPU.
    """
    found: dict[str, CardChoice] = {}
    for text in texts:
        if text.strip().lower() == LOCAL:
            found |= {choice.label: choice for choice in local_choices(catalog, remark)}
        elif text.strip().lower() == LOCAL_TOGETHER:
            choice = replace(group_of(local_choices(catalog, remark)), label=LOCAL_TOGETHER)
            found[choice.label] = choice
        else:
            choice = catalog.card(text)
            found.setdefault(choice.label, choice)
    for choice in found.values():
        if any(card.shares_memory for card in choice.candidates):
            remark(
                f"{choice.title} has no memory of its own, it uses the CPU's: take off what the "
                "system and other programs hold (--other)"
            )
    return list(found.values())


def choose_default_cards(catalog: Catalog, remark: Remark) -> list[CardChoice]:
    """Return this machine's GPUs, or two common classes where there are none, and say which."""
    try:
        choices = local_choices(catalog, remark)
    except MissingError as problem:
        remark(f"judged on {' and '.join(DEFAULT_CLASSES)}; this machine: {problem}")
        return choose_cards(DEFAULT_CLASSES, catalog, remark)
    titles = ", ".join(choice.title for choice in choices)
    together = f", each alone; {LOCAL_TOGETHER} for all together" if len(choices) > 1 else ""
    remark(f"judged on this machine: {titles}{together}")
    return choices


def local_choices(catalog: Catalog, remark: Remark) -> list[CardChoice]:
    """Return this machine's GPUs with what is free on them now.

    Their multiprocessors are those of the catalogue's card of the same name, else what NVML says.
    Raises MissingError where there are none.
    """
    from vramplan.probe.nvml import read_inventory

    inventory = read_inventory()
    for problem in inventory.problems:
        remark(f"left out: {problem}")
    cards = [_local_card(gpu, inventory.driver_version, catalog) for gpu in inventory.gpus]
    if len(cards) > 1:
        cards = [replace(card, name=f"{LOCAL}:{place}") for place, card in enumerate(cards)]
    return [CardChoice(label=card.name, title=card.title, candidates=(card,)) for card in cards]


def _local_card(gpu: Gpu, driver_version: str, catalog: Catalog) -> Card:
    known = find_printed(gpu.name, gpu.total_bytes, catalog.cards.values())
    return Card(
        name=LOCAL,
        title=gpu.name,
        kind="local",
        class_gib=round(gpu.total_bytes / GIB),
        total_bytes=gpu.total_bytes,
        reserved_bytes=gpu.reserved_bytes or 0,
        compute_capability=gpu.compute_capability,
        bandwidth_bytes_per_s=gpu.bandwidth_bytes_per_s,
        source=f"NVML, driver {driver_version}, {gpu.uuid}",
        free_bytes=gpu.free_bytes,
        multiprocessors=gpu.multiprocessors if known is None else known.multiprocessors,
        shares_memory=known is not None and known.shares_memory,
    )


def own_cards(catalog: Catalog, remark: Remark) -> list[tuple[str, str]]:
    """Return this machine's GPUs as CARDs that mean the same elsewhere, each with words about it.

    That is the catalogue's name for one, else its size. None where there are no GPUs.
    """
    from vramplan.probe.nvml import read_inventory

    try:
        inventory = read_inventory()
    except MissingError:
        return []
    for problem in inventory.problems:
        remark(f"left out: {problem}")
    found: dict[str, str] = {}
    for gpu in inventory.gpus:
        known = find_printed(gpu.name, gpu.total_bytes, catalog.cards.values())
        usable = gpu.total_bytes - (gpu.reserved_bytes or 0)
        text = known.name if known is not None else f"{usable // MIB}MiB"
        found.setdefault(text, f"this machine's {gpu.name}")
    return list(found.items())


def drawn_cards(choices: Sequence[CardChoice]) -> list[Card]:
    """Return one card per choice, under the choice's name: the line it draws across a budget."""
    return [
        replace(choice.candidates[0], name=choice.label, title=choice.title) for choice in choices
    ]


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """Cards, what a class or a size of them is judged at, and what is said of both."""

    cards: tuple[Card, ...]
    judged: tuple[Card, ...] = ()
    lines: tuple[str, ...] = ()


def look_up(text: str | None, catalog: Catalog, remark: Remark) -> Shown:
    """Return the cards that a CARD stands for, or all of them; ``auto`` is this machine's.

    Raises UsageError for a card nobody knows, MissingError for ``auto`` without a GPU.
    """
    if text is None:
        return Shown(cards=tuple(catalog.cards.values()))
    if text.strip().lower() == LOCAL:
        choices = local_choices(catalog, remark)
        found = tuple(card for choice in choices for card in choice.candidates)
        return Shown(cards=found, lines=_sources(found))
    choice = catalog.card(text)
    members, judged = _members(choice, catalog)
    lines = _about(choice, judged) or _sources(members)
    return Shown(cards=tuple(members), judged=tuple(judged), lines=lines)


def _members(choice: CardChoice, catalog: Catalog) -> tuple[Sequence[Card], Sequence[Card]]:
    """Return the cards that a choice speaks of, and what a class or a size is judged at."""
    first = choice.candidates[0]
    if first.seats:
        return list(dict.fromkeys(seat.card for one in choice.candidates for seat in one.seats)), ()
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


def _about(choice: CardChoice, judged: Sequence[Card]) -> tuple[str, ...]:
    """Return what a class or a size is judged at, in words; nothing for a named card."""
    if not judged:
        return ()
    capabilities = ", ".join(card.compute_capability for card in judged)
    return (
        f"{choice.label} is judged as {judged[0].source}",
        f"on each of the compute capabilities {capabilities}; the worst is shown",
    )


def _sources(cards: Sequence[Card]) -> tuple[str, ...]:
    return tuple(f"{card.name}: {card.source}" for card in cards)
