"""What does it need? The budget of one job, on the architecture that needs most."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from vramplan.ask.cards import choose_cards
from vramplan.ask.targets import make_jobs, open_catalog
from vramplan.catalog import CardChoice
from vramplan.catalog.cards import DEFAULT_CAPABILITY, assumed_card
from vramplan.engines.door import Remark, engine_of
from vramplan.model import Card, Estimate, Job, Seat, SettingValue
from vramplan.quick_dataclass import dataclass, replace
from vramplan.quick_typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vramplan.compare.witness import Witness


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """An estimate with what stands beside it: the cards it was asked for, and the engine itself."""

    job: Job
    estimate: Estimate
    choices: tuple[CardChoice, ...] = ()
    witness: Witness | None = None


def estimate_target(
    target: str,
    cards: Sequence[str],
    settings: Mapping[str, SettingValue],
    remark: Remark,
    *,
    catalog: Sequence[str | Path] = (),
    mmproj: str | None = None,
    asks_engine: bool = False,
) -> Budget:
    """Return the budget of a TARGET, with what others published of it beside ours.

    Of several cards the one that needs most is taken; without one an architecture is assumed, and
    that is noted. Raises VramplanError.
    """
    known = open_catalog(catalog)
    (job,) = make_jobs([target], known, settings, mmproj, remark)
    choices = choose_cards(cards, known, remark)
    estimate, card = _worst(job, choices)
    witness = engine_of(job.pipeline).witness(job, card=card) if asks_engine else None
    from vramplan.ask.published import compare_published

    shown = replace(estimate, published=compare_published(job.pipeline))
    return Budget(job=job, estimate=shown, choices=tuple(choices), witness=witness)


def estimate_worst(job: Job, choices: Sequence[CardChoice]) -> Estimate:
    """Return the estimate on the card, of all that the choices stand for, that needs most."""
    return _worst(job, choices)[0]


def _worst(job: Job, choices: Sequence[CardChoice]) -> tuple[Estimate, Card]:
    """Return the same, with that card."""
    cards = _one_each(choices) or [assumed_card()]
    engine = engine_of(job.pipeline)
    found = [(engine.estimate(job, card), card) for card in cards]
    worst, where = max(
        found, key=lambda one: (one[0].need.band.expected_bytes, one[0].need.band.high_bytes)
    )
    if not choices:
        said = (
            f"compute capability {DEFAULT_CAPABILITY} is assumed, with an RTX 3060's "
            "multiprocessors: no card was named"
        )
    elif len(capabilities := dict.fromkeys(card.compute_capability for card in cards)) > 1:
        others = ", ".join(one for one in capabilities if one != worst.compute_capability)
        said = (
            f"of the cards' architectures, compute capability {worst.compute_capability} needs "
            f"most; the others are {others}"
        )
    else:
        return replace(worst, asked=job.asked), where
    return replace(worst, notes=(said, *worst.notes), asked=job.asked), where


def _one_each(choices: Sequence[CardChoice]) -> list[Card]:
    """Return a card of each architecture and size among the choices'."""
    found: dict[tuple[str, int | None, tuple[Seat, ...]], Card] = {}
    for choice in choices:
        for card in choice.candidates:
            found.setdefault((card.compute_capability, card.multiprocessors, card.seats), card)
    return list(found.values())
