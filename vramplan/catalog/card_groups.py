"""Several cards used as one: ``2xrtx-3090``, ``rtx-4090+rtx-3060-12gb``, ``2x24gb``.

They stand in the order in which CUDA numbers them, since an engine deals out layers by that: the
fastest first, unless CUDA_DEVICE_ORDER=PCI_BUS_ID says otherwise. Classes are judged on each of
their compute capabilities, cards of one class on the same. ``rpc:rtx-3090`` is a card that another
machine has and serves to llama.cpp over RPC, alone or beside others.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import product
from math import prod

from vramplan.catalog.card_choice import CardChoice
from vramplan.errors import UsageError
from vramplan.model import Card, Seat
from vramplan.quick_dataclass import replace

#: cards that an engine takes (llama.cpp, ggml-backend.h: GGML_MAX_BACKENDS less the CPU's)
MOST_CARDS = 15
#: sets of candidates that several classes may stand for
_MOST_CANDIDATES = 64

# compiled where it is used: most runs have one card
_COUNTED = r"(?s)([1-9][0-9]{0,2})\s*[xX]\s*(?=\S)(.+)"
_PLUS = "+"
#: before the name of a card that another machine serves
REMOTE = "rpc:"
#: between a number and what there are so many of, for people
TIMES = " x "


def is_group(text: str) -> bool:
    """Return whether a CARD of the command line is several cards."""
    name = text.strip()
    if _PLUS in text or is_remote(name):
        return True
    return "x" in name.lower() and re.fullmatch(_COUNTED, name) is not None


def is_remote(name: str) -> bool:
    """Return whether a card of this name is served by another machine."""
    return name.lower().startswith(REMOTE)


def match_group(text: str, match_one: Callable[[str], CardChoice]) -> tuple[CardChoice, ...]:
    """Return the choice of each card of a group, in order; `match_one` reads one of them.

    Raises UsageError for what is no list of cards, and as `match_one` does.
    """
    found: list[CardChoice] = []
    for part in text.split(_PLUS):
        counted = re.fullmatch(_COUNTED, part.strip())
        count, name = (int(counted[1]), counted[2]) if counted else (1, part.strip())
        if not name or re.fullmatch(_COUNTED, name):
            hint = "write 2xrtx-3090, or rtx-4090+rtx-3060-12gb"
            raise UsageError(f"not a list of cards: {text!r}", hint=hint)
        if len(found) + count > MOST_CARDS:
            raise UsageError(f"{text!r} is more than {MOST_CARDS} cards, which no engine takes")
        found += [_match_remote(name, match_one) if is_remote(name) else match_one(name)] * count
    return tuple(found)


def _match_remote(text: str, match_one: Callable[[str], CardChoice]) -> CardChoice:
    """Return a card that another machine serves. Raises UsageError as `match_one` does."""
    name = text[len(REMOTE) :].strip()
    hint = f"what counts is the card that it serves: {REMOTE}rtx-3090, or {REMOTE}24gb"
    if not name or is_group(name) or ":" in name:
        raise UsageError(f"{text!r} names no card of another machine", hint=hint)
    here = match_one(name)
    there = (
        replace(card, name=REMOTE + card.name, title=f"{card.title} over RPC", is_remote=True)
        for card in here.candidates
    )
    return CardChoice(
        label=REMOTE + here.label, title=f"{here.title} over RPC", candidates=tuple(there)
    )


def label_of(names: Sequence[str], counted: str = "x") -> str:
    """Return the plain form of a list of cards: ``2xrtx-3090+rtx-3060-12gb``."""
    joint = f" {_PLUS} " if counted == TIMES else _PLUS
    return joint.join(
        f"{count}{counted}{name}" if count > 1 else name for name, count in _runs(names)
    )


def _runs(names: Sequence[str]) -> Iterator[tuple[str, int]]:
    last, count = "", 0
    for name in (*names, ""):
        if name != last and count:
            yield last, count
            count = 0
        last, count = name, count + 1


def candidates_of(parts: Sequence[CardChoice]) -> tuple[Card, ...]:
    """Return the sets of cards that a verdict has to hold on, each as one card with seats.

    Raises UsageError where classes stand for too many of them.
    """
    kinds: Mapping[str, tuple[Card, ...]] = {part.label: part.candidates for part in parts}
    if prod(map(len, kinds.values())) > _MOST_CANDIDATES:
        hint = "name the cards, or all of them by one class, such as 2x24gb"
        raise UsageError("so many classes stand for too many sets of cards", hint=hint)
    found = []
    for chosen in product(*kinds.values()):
        by_label = dict(zip(kinds, chosen, strict=True))
        found.append(together([by_label[part.label] for part in parts]))
    return tuple(found)


def together(cards: Sequence[Card]) -> Card:
    """Return several cards as one, whose seats have no budgets yet."""
    free = [card.free_bytes for card in cards]
    oldest = min(cards, key=lambda card: [int(one) for one in card.compute_capability.split(".")])
    is_assumed = any(card.kind == "assumed" for card in cards)
    return Card(
        name=label_of([card.name for card in cards]),
        title=label_of([card.title for card in cards], TIMES),
        kind="assumed" if is_assumed else "several",
        class_gib=sum(card.class_gib for card in cards),
        total_bytes=sum(card.total_bytes for card in cards),
        reserved_bytes=sum(card.reserved_bytes for card in cards),
        compute_capability=oldest.compute_capability,
        bandwidth_bytes_per_s=min(card.bandwidth_bytes_per_s for card in cards),
        source="; ".join(dict.fromkeys(card.source for card in cards)),
        free_bytes=None if None in free else sum(one or 0 for one in free),
        shares_memory=any(card.shares_memory for card in cards),
        seats=tuple(Seat(card=card, budget_bytes=0) for card in cards),
    )
