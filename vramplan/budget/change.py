"""One change of a job's settings: how a user says it, and what it costs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from vramplan.model import SettingValue
from vramplan.quick_dataclass import dataclass

NO_COST = "nothing"


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """Settings to change, how a user says it, and what it costs."""

    settings: Mapping[str, SettingValue]
    line: str
    cost: str
    is_last_resort: bool = False


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
        is_last_resort=any(change.is_last_resort for change in kept),
    )
