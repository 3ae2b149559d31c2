"""Which changes make it fit: alone, in pairs, or more at once where that is cheaper.

A combination is as dear as its changes together; of two that are equally dear the one with fewer
changes comes first, then the one whose changes are named first. What contains a combination that
fits already, or goes further on one of its ladders, is not a combination of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import combinations, product

from vramplan.budget.change import MUCH, SOME, Change

Chain = tuple[Change, ...]
#: whether a run with these changes fits
Fits = Callable[[Chain], bool]

#: so many combinations of as many changes are worth knowing, if none is dearer by so much
_MOST_ALIKE, _DEARER = 4, MUCH

#: a ladder's changes, each with its place among all
_Ladder = tuple[tuple[int, Change], ...]


def find_combinations(changes: Iterable[Change], may_fit: Fits, fits: Fits) -> Iterator[Chain]:
    """Yield the changes that fit alone, pairs that do, and one of more changes if it is cheaper.

    That one is looked for where a change or two cost more than some. It is what is left of all
    changes when those are shed that it fits without, the dearest first. Along a ladder memory never
    rises: where two ladders at their ends do not fit, nothing before that is tried. What `may_fit`
    refuses, `fits` is not asked about, which costs more.
    """
    listed = list(changes)
    ladders = _ladders(listed)
    more: Chain | None = None
    is_sought = False  # more changes at once
    found: list[Chain] = []
    reach: dict[tuple[int, ...], bool] = {}
    for places, chain in _up_to_two(ladders):
        if not found and not is_sought and price_of(chain) > SOME:
            is_sought = True
            more = _more_at_once(listed, ladders, may_fit, fits)
        if more is not None and not found and price_of(more) < price_of(chain):
            found.append(more)
            yield more
        is_enough = _is_enough(chain, found)
        if (is_enough and len(chain) > 1) or any(_covers(chain, known) for known in found):
            continue
        if places not in reach:
            reach[places] = may_fit(tuple(ladders[place][-1][1] for place in places))
        if reach[places] and may_fit(chain) and fits(chain):
            found.append(chain)
            if not is_enough:
                yield chain
    if not found:
        more = more if is_sought else _more_at_once(listed, ladders, may_fit, fits)
        yield from () if more is None else (more,)


def everything(changes: Iterable[Change]) -> Chain:
    """Return all changes at once: of those that exclude each other the last one named."""
    kept: list[Change] = []
    for change in changes:
        kept = [other for other in kept if not _excludes(other, change)]
        kept.append(change)
    return tuple(kept)


def price_of(chain: Chain) -> int:
    """Return how dear changes are together."""
    return sum(change.price for change in chain)


def _is_enough(chain: Chain, found: Sequence[Chain]) -> bool:
    """True where combinations of as many changes are known, and this one is much dearer than any.

    Or enough of them: the first alone and the first pair are always worth knowing.
    """
    alike = sum(len(known) == len(chain) for known in found)
    cheapest = min(map(price_of, found), default=0)
    return alike >= _MOST_ALIKE or (alike > 0 and price_of(chain) > cheapest + _DEARER)


def _more_at_once(
    changes: Sequence[Change], ladders: Sequence[_Ladder], may_fit: Fits, fits: Fits
) -> Chain | None:
    """Return the combination of three changes or more that is left of all; None where none is."""
    whole = everything(changes)
    if len(whole) < 3 or not may_fit(whole):
        return None
    chain = _shed(whole, ladders, may_fit)
    return chain if len(chain) > 2 and fits(chain) else None


def _ladders(changes: Iterable[Change]) -> list[_Ladder]:
    """Return changes by their ladders, in order; what is on none stands alone."""
    found: dict[object, list[tuple[int, Change]]] = {}
    for number, change in enumerate(changes):
        found.setdefault(change.ladder or number, []).append((number, change))
    return [tuple(ladder) for ladder in found.values()]


def _up_to_two(ladders: Sequence[_Ladder]) -> list[tuple[tuple[int, ...], Chain]]:
    """Return all changes and pairs of them, cheapest first, with the ladders that they are from."""
    listed = []
    for count in (1, 2):
        for places in combinations(range(len(ladders)), count):
            for steps in product(*(ladders[place] for place in places)):
                chain = tuple(change for _, change in steps)
                if count == 2 and _excludes(*chain):
                    continue
                rank = price_of(chain), count, tuple(sorted(number for number, _ in steps))
                listed.append((rank, places, chain))
    listed.sort(key=lambda one: one[0])
    return [(places, chain) for _, places, chain in listed]


def _excludes(one: Change, other: Change) -> bool:
    return bool(one.settings.keys() & other.settings.keys())


def _covers(chain: Chain, known: Chain) -> bool:
    """True where `chain` does all that `known` does, as far or further."""
    return all(any(_is_as_far(change, one) for change in chain) for one in known)


def _is_as_far(change: Change, known: Change) -> bool:
    if change.ladder is None or change.ladder != known.ladder:
        return change is known
    return change.price >= known.price


def _shed(chain: Chain, ladders: Sequence[_Ladder], fits: Fits) -> Chain:
    """Return `chain` without what it fits without, the dearest left out first, or gone less far."""
    for change in sorted(chain, key=lambda change: -change.price):
        rest = tuple(other for other in chain if other is not change)
        if fits(rest):
            chain = rest
            continue
        steps = next((one for one in ladders if any(change is step for _, step in one)), ())
        for _, step in steps:
            nearer = tuple(step if other is change else other for other in chain)
            if step is change or fits(nearer):
                chain = nearer
                break
    return chain
