"""Multiprocessors: how many a GPU has, and what each architecture keeps in one.

The tables are those of the CUDA C++ Programming Guide, "Technical specifications per compute
capability" (resident threads) and "Arithmetic instructions" (32-bit floating-point lanes: what the
driver and the data sheets call cores).
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from vramplan.model import Card

#: the most threads that are resident in one multiprocessor, by compute capability
_THREADS = {"7.5": 1024, "8.6": 1536, "8.7": 1536, "8.9": 1536, "11.0": 1536}
_THREADS_FROM_12 = 1536
_THREADS_ELSEWHERE = 2048

#: cores of one multiprocessor
_CORES = {"6.0": 64, "7.0": 64, "7.2": 64, "7.5": 64, "8.0": 64}
_CORES_ELSEWHERE = 128

#: architectures with cards that MIG divides (NVIDIA MIG User Guide, "Supported GPUs")
_DIVISIBLE = frozenset({"8.0", "9.0", "10.0", "10.3"})

#: what a printed name has beside the chip's: sizes, and how memory and card are built
_BUILD = r"(?a)[\s-]+(?:\d+\s?gb|sxm\d?|pcie|hbm\d\w*)\b"


def resident_threads(compute_capability: str) -> int:
    """Return the most threads that one multiprocessor of an architecture holds."""
    if int(compute_capability.split(".", maxsplit=1)[0]) >= 12:
        return _THREADS_FROM_12
    return _THREADS.get(compute_capability, _THREADS_ELSEWHERE)


def multiprocessors_of(cores: int, compute_capability: str) -> int | None:
    """Return how many multiprocessors `cores` are; None where they are no whole number of them."""
    each = _CORES.get(compute_capability, _CORES_ELSEWHERE)
    return cores // each if cores > 0 and cores % each == 0 else None


def chip_name(printed: str) -> str:
    """Return what names the chip in a GPU's name: without maker, size and form."""
    return re.sub(_BUILD, "", printed.strip().lower()).removeprefix("nvidia ")


def find_printed(printed: str, total_bytes: int, cards: Iterable[Card]) -> Card | None:
    """Return the card that NVIDIA's driver prints the name and size of; None for an unknown one.

    Where one name is sold in several sizes (RTX 2060, 3050, 3080) the nearest one is meant.
    """
    cards = list(cards)
    plain, wanted = printed.strip().lower(), chip_name(printed)
    named = [card for card in cards if card.title.lower() == plain] or [
        card for card in cards if chip_name(card.title) == wanted
    ]
    return min(named, key=lambda card: abs(card.total_bytes - total_bytes), default=None)


def most_multiprocessors(cards: Iterable[Card], usable_bytes: int) -> int | None:
    """Return the most multiprocessors that a card of a size may have; None where nobody told any.

    `cards` are of one compute capability.
    """
    counts = nearest_multiprocessors(cards, usable_bytes)
    return counts[-1] if counts else None


def nearest_multiprocessors(cards: Iterable[Card], usable_bytes: int) -> list[int]:
    """Return the multiprocessors of the cards of the class nearest to a size, fewest first.

    A size under half of the smallest card that can be divided (MIG) is taken for a share of it, and
    gets its share of the multiprocessors: seven slices of those go with eight of the memory.
    """
    known = [card for card in cards if card.multiprocessors is not None]
    if not known:
        return []

    def usable(card: Card) -> int:
        return card.total_bytes - card.reserved_bytes

    nearest = min(known, key=lambda card: abs(usable(card) - usable_bytes))
    counts = sorted(
        card.multiprocessors or 0 for card in known if card.class_gib == nearest.class_gib
    )
    if nearest.compute_capability not in _DIVISIBLE or 2 * usable_bytes > usable(nearest):
        return counts
    return [max(1, -(-8 * count * usable_bytes // (7 * usable(nearest)))) for count in counts]
