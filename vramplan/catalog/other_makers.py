"""Cards that people name and vramplan does not plan for, and names that several cards share."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from vramplan.model import Card

#: a name as people write it, with what its maker calls such hardware
_OTHERS = (
    (re.compile(r"(apple-)?m[1-9](-(pro|max|ultra))?|apple(-.*)?"), "Apple's GPUs"),
    (re.compile(r"(amd-)?(radeon-)?(pro-)?(rx|vega|w)-?[0-9]{2,4}m?(-.*)?"), "AMD's GPUs"),
    (re.compile(r"(amd-)?(instinct-)?mi[0-9]{2,3}[a-z]?(-.*)?"), "AMD's GPUs"),
    (re.compile(r"(amd|radeon|instinct|strix)(-.*)?"), "AMD's GPUs"),
    (re.compile(r"(intel-)?(arc-)?(a(310|380|580|750|770)|b(570|580))"), "Intel's GPUs"),
    (re.compile(r"(intel|arc|gaudi)(-.*)?"), "Intel's GPUs"),
    (re.compile(r"(tpu|trainium|inferentia)(-.*)?"), "accelerators of other makers"),
)
#: more names than this are not read
_MOST_SHOWN = 8


def maker_of(slug: str) -> str | None:
    """Return whose hardware a name is that is not NVIDIA's, in words; None for any other name."""
    return next((maker for pattern, maker in _OTHERS if pattern.fullmatch(slug)), None)


def cards_with(slug: str, cards: Iterable[Card]) -> list[str]:
    """Return the names of the cards whose name or alias has `slug` in it, dashes aside."""
    wanted = slug.replace("-", "")
    if len(wanted) < 2:
        return []
    return [
        card.name
        for card in cards
        if any(wanted in name.replace("-", "") for name in (card.name, *card.aliases))
    ]


def listed(names: Sequence[str]) -> str:
    """Return ``a or b``, of many names the first and how many more there are."""
    if len(names) <= _MOST_SHOWN:
        return " or ".join(names)
    more = len(names) - _MOST_SHOWN
    return f"{', '.join(names[:_MOST_SHOWN])} or {more} more: vramplan cards shows them"
