"""One change of a job's settings: how a user says it, what it costs, and how dear that is.

Prices only rank changes. Three of one kind are as dear as one of the next, so that prices of
changes made together add up.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from vramplan.model import SettingValue
from vramplan.quick_dataclass import dataclass

NO_COST = "nothing"

#: nobody notices it
NOTHING = 0
#: a little time, or a difference that is hard to see
LITTLE = 1
#: time, or fewer results at once
SOME = 3
#: less of what was asked for
MUCH = 9
#: many times slower
LAST_RESORT = 27


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """Settings to change, how a user says it, what it costs in words, and its price.

    Changes of one `ladder` change the same setting further and further: who takes a later one needs
    less memory, and pays more.
    """

    settings: Mapping[str, SettingValue]
    line: str
    cost: str
    price: int = LITTLE
    ladder: str | None = None

    @property
    def is_last_resort(self) -> bool:
        """Return whether it is for those whom nothing else helps."""
        return self.price >= LAST_RESORT


def combine(chain: Iterable[Change]) -> Change:
    """Return changes as one. Where two change the same setting, the later one stands alone."""
    kept: list[Change] = []
    for change in chain:
        kept = [other for other in kept if not other.settings.keys() & change.settings.keys()]
        kept.append(change)
    costs = [change.cost for change in kept if change.cost != NO_COST] or [NO_COST]
    return Change(
        settings={key: value for change in kept for key, value in change.settings.items()},
        line="; ".join(change.line for change in kept),
        cost="; ".join(costs),
        price=sum(change.price for change in kept),
    )
