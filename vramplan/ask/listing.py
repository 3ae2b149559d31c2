"""What is looked for in the catalogue: cards and pipelines by what they are called."""

from __future__ import annotations

from collections.abc import Sequence

from vramplan.ask.cards import LOCAL, Shown
from vramplan.catalog import Catalog, usable_bytes
from vramplan.catalog.cards import class_of
from vramplan.catalog.pipelines import Entry
from vramplan.errors import UsageError, did_you_mean
from vramplan.model import Card
from vramplan.quick_dataclass import dataclass
from vramplan.units import parse_size

#: how like a kind or a name a word must be to be taken for a misspelling of it
_LIKENESS = 0.7


@dataclass(frozen=True, slots=True, kw_only=True)
class CardFilter:
    """Which cards are looked for: each of `words` in what a card is called, and its size.

    `least_bytes` and `most_bytes` are of what NVML says less the system's reserve, or as a class
    (`least_gib`, `most_gib`) of the number on the box.
    """

    words: tuple[str, ...] = ()
    least_bytes: int | None = None
    most_bytes: int | None = None
    least_gib: int | None = None
    most_gib: int | None = None

    def takes(self, card: Card) -> bool:
        """Return whether it is such a card."""
        usable, gib = usable_bytes(card), card.class_gib
        return (
            all(_is_called(card, word) for word in self.words)
            and (self.least_bytes is None or usable >= self.least_bytes)
            and (self.most_bytes is None or usable <= self.most_bytes)
            and (self.least_gib is None or gib >= self.least_gib)
            and (self.most_gib is None or gib <= self.most_gib)
        )


def _is_called(card: Card, word: str) -> bool:
    said = (card.name, card.title, card.kind, *card.aliases)
    wanted = word.lower()
    return wanted == card.compute_capability or any(wanted in one.lower() for one in said)


def find_cards(wanted: CardFilter, catalog: Catalog) -> Shown:
    """Return the cards that are looked for; raises UsageError for a word that none is called."""
    for word in wanted.words:
        if not any(_is_called(card, word) for card in catalog.cards.values()):
            kinds = dict.fromkeys(card.kind for card in catalog.cards.values())
            near = did_you_mean(word, kinds, likeness=_LIKENESS)
            if near:
                raise UsageError(f"no card is called {word!r}", hint=near)
            catalog.card(word)  # says what is wrong with it
    found = tuple(card for card in catalog.cards.values() if wanted.takes(card))
    return Shown(cards=found, lines=() if found else ("no card is called so and as large",))


def is_card(text: str, catalog: Catalog) -> bool:
    """Return whether a CARD is meant by a word: a name, a class, a size or auto."""
    try:
        catalog.card(text)
    except UsageError:
        return text.strip().lower() == LOCAL
    return True


def read_bound(option: str, text: str) -> tuple[int | None, int | None]:
    """Return what a bound on a card's size says: bytes, or the number of a class.

    ``12gb`` is the class, as everywhere in a CARD; ``11.6GiB`` is a size. Raises UsageError.
    """
    found = class_of(text)
    if found is not None:
        return None, found
    try:
        return parse_size(text), None
    except UsageError as problem:
        raise UsageError(f"{option}: {problem}", hint=problem.hint) from None


def find_pipelines(words: Sequence[str], catalog: Catalog) -> list[Entry]:
    """Return the pipelines with each of `words` in what they are called, said to be or run by.

    Family, task, licence and the hub's names are among it.

    Raises UsageError for a word that is in none of them.
    """
    found = list(catalog.pipelines.values())
    for word in words:
        if not any(_says(one, word) for one in catalog.pipelines.values()):
            near = did_you_mean(word, catalog.pipelines, likeness=_LIKENESS)
            hint = near or "vramplan catalog list shows them all"
            raise UsageError(f"no pipeline of the catalogue has {word!r} in it", hint=hint)
        found = [one for one in found if _says(one, word)]
    return found


def _says(entry: Entry, word: str) -> bool:
    said = (
        *(entry.name, entry.title, entry.summary, entry.runtime, *entry.aliases),
        *(entry.family, entry.task, entry.license, *entry.repositories),
    )
    return any(word.lower() in one.lower() for one in said)
