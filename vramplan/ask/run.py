"""Would a program fit a card? It is run, unchanged, on cards that are not there."""

from __future__ import annotations

import re
from collections.abc import Sequence

from vramplan.ask.cards import choose_cards
from vramplan.ask.profile import played_card
from vramplan.engines.door import Remark, can_pretend, check_program, try_program
from vramplan.errors import UsageError
from vramplan.measurement.tried import Trial, TrialOutcome
from vramplan.model import Card
from vramplan.quick_dataclass import dataclass, replace
from vramplan.quick_typing import IO, TYPE_CHECKING

if TYPE_CHECKING:
    from vramplan.catalog import Catalog
    from vramplan.catalog.pipelines import Entry

#: words by which people name what is not NVIDIA's
_OTHER_MAKERS = re.compile(
    r"(amd|radeon|instinct|intel|arc|apple|mps|m[1-5]|rx|mi\d{2,3})([-_ ].*)?", re.IGNORECASE
)


_MOST_GPUS = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What is to be run: a command, on so many of each card.

    `wants_all` tries a class on each compute capability of its cards, else on its commonest. With
    `known`, entries of a catalogue, models that it loads are met with configs alone.
    """

    command: tuple[str, ...]
    gpus: int = 1
    wants_all: bool = False
    output: IO[str] | None = None
    known: tuple[Entry, ...] | None = None


def check_order(order: Order, cards: Sequence[Card]) -> None:
    """Raise UsageError where a program cannot be run, or a card cannot be pretended."""
    if not order.command:
        hint = "vramplan run --card 8gb -- python my_script.py"
        raise UsageError("no PROGRAM was named", hint=hint)
    if not 1 <= order.gpus <= _MOST_GPUS:
        raise UsageError(f"--gpus: from 1 to {_MOST_GPUS}, not {order.gpus}")
    check_program(order.command, cards)


def cards_to_try(
    texts: Sequence[str], catalog: Catalog, remark: Remark, *, wants_all: bool = False
) -> list[Card]:
    """Return the cards that CARDs stand for; of a class the smallest, at its commonest capability.

    Raises UsageError for a card that cannot be pretended.
    """
    for text in texts:
        if _OTHER_MAKERS.fullmatch(text.strip()):
            message = f"--card {text}: only NVIDIA's cards can be pretended"
            raise UsageError(message, hint="vramplan cards shows them")
    found: list[Card] = []
    for choice in choose_cards(texts, catalog, remark):
        if len(choice.candidates) == 1:
            found.append(choice.candidates[0])
        elif wants_all:
            found += [card for card in choice.candidates if can_pretend(card)]
        else:
            found.append(_commonest(choice.label, catalog))
    return found


def classes(catalog: Catalog) -> list[Card]:
    """Return a card of each class, the smallest first."""
    from vramplan.catalog.cards import class_names

    found = []
    for name in class_names(catalog.cards.values()):
        card = _commonest(name, catalog)
        if can_pretend(card):
            found.append(card)
    return found


def _commonest(label: str, catalog: Catalog) -> Card:
    """Return a class's smallest card, at its commonest compute capability."""
    card = played_card(label, catalog)
    return replace(card, title=f"{card.title}, compute capability {card.compute_capability}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What became of a program on each card; `smallest` is the least on which it completes.

    Where that was not the question it is None.
    """

    trials: tuple[Trial, ...]
    smallest: Trial | None = None
    seeks: bool = False

    @property
    def has_failed(self) -> bool:
        """True where the program failed for reasons of its own."""
        return any(one.outcome is TrialOutcome.FAILED for one in self.trials)

    @property
    def fits(self) -> bool:
        """True where it completes: on every card, or on the smallest that was found."""
        if self.seeks:
            return self.smallest is not None
        return all(one.outcome is TrialOutcome.COMPLETES for one in self.trials)


def try_each(order: Order, cards: Sequence[Card], progress: Remark) -> Answer:
    """Run the program on one card after another."""
    return Answer(trials=tuple(_try(order, card, progress) for card in cards))


def _try(order: Order, card: Card, progress: Remark) -> Trial:
    progress(f"running on {card.title}")
    return try_program(order.command, card, gpus=order.gpus, output=order.output, known=order.known)


def find_smallest(order: Order, cards: Sequence[Card], progress: Remark) -> Answer:
    """Find the smallest of `cards` on which the program completes, and return all trials.

    Cards are tried by halves, from the smallest up: what completes is taken to complete on every
    larger card. A program that fails for reasons of its own is not tried again.
    """
    ordered = sorted(cards, key=lambda card: card.total_bytes - card.reserved_bytes)
    trials: list[Trial] = []
    best: Trial | None = None
    low, high = 0, len(ordered)
    while low < high:
        middle = (low + high) // 2
        trial = _try(order, ordered[middle], progress)
        trials.append(trial)
        if trial.outcome is TrialOutcome.FAILED:
            break
        if trial.outcome is TrialOutcome.COMPLETES:
            best, high = trial, middle
        else:
            low = middle + 1
    found = None if trials[-1].outcome is TrialOutcome.FAILED else best
    return Answer(trials=tuple(trials), smallest=found, seeks=True)
