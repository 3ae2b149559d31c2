"""The rules of a verdict: the budget that a card leaves, and how a need is graded against it.

fits      high <= budget                     tight    expected <= budget < high
offload   expected > budget, it will spill   oom      expected > budget, it will fail

An engine that keeps a part in host memory so that the rest fits says `offload` itself.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

from vramplan.budget.cuda_context import context_band
from vramplan.catalog import CardChoice, usable_bytes
from vramplan.errors import UsageError
from vramplan.model import (
    Band,
    Card,
    CardShare,
    Judgement,
    LayerSplit,
    Need,
    Seat,
    Settings,
    VerdictKind,
)
from vramplan.quick_dataclass import dataclass, replace
from vramplan.setting_values import SPILLING_PLATFORMS
from vramplan.units import format_size

#: the 95 % point of the standard normal distribution
_Z95 = 1.6448536269514722


@dataclass(frozen=True, slots=True, kw_only=True)
class Graded:
    """A judgement's figures without its words: what a grid of verdicts is made of.

    `layers` and `context` (tokens) are what the engine makes of the card, and `is_split` says that
    it puts a part elsewhere. `cards` are several cards, each graded by itself; `one_budget_bytes`
    is what the one of them offers that the job runs on, where it runs on one.
    """

    kind: VerdictKind
    need: Need
    layers: LayerSplit | None = None
    context: int | None = None
    is_split: bool = False
    cards: tuple[CardShare, ...] = ()
    one_budget_bytes: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Screening:
    """What a quick look says of a run on a budget.

    What does not pass (`fits`, or `completes` where tight is good enough) is not judged better;
    what passes is judged again. Below `least_bytes` it cannot fit, below `least_tight_bytes` not
    even be tight; both grow with every setting that asks for more. `is_assumed`: nothing of the
    run was recorded, and all but its weights is a wide band.
    """

    fits: bool
    completes: bool
    least_bytes: int
    least_tight_bytes: int
    is_assumed: bool = False

    def passes(self, worst: VerdictKind) -> bool:
        """Return whether the verdict may be as good as `worst`."""
        return self.fits if worst is VerdictKind.FITS else self.completes

    def least_for(self, worst: VerdictKind) -> int:
        """Return the bytes below which no budget brings a verdict as good as `worst`."""
        return self.least_bytes if worst is VerdictKind.FITS else self.least_tight_bytes


#: grades one job on a card that offers so many bytes
Grader = Callable[[Card, int], Graded]


def without_words(judgement: Judgement) -> Graded:
    """Return a judgement's figures."""
    found = judgement.estimate
    tokens = found.settings.get("context")
    return Graded(
        kind=judgement.kind,
        need=found.need,
        layers=judgement.layers or found.layers,
        context=tokens if found.layers is not None and isinstance(tokens, int) else None,
        is_split=judgement.is_split,
        cards=judgement.cards,
        one_budget_bytes=judgement.one_budget_bytes,
    )


def candidate_budgets(
    choice: CardChoice, margin_bytes: int, other_bytes: int | None, kept_bytes: int = 0
) -> Iterator[tuple[Card, int]]:
    """Yield the cards of a choice that can get different verdicts, each with its budget in bytes.

    Of several cards each has a budget of its own, and theirs is the sum.
    `kept_bytes` are the platform's own (`system_share`). Raises UsageError where no CUDA context
    fits.
    """
    seen: set[tuple[tuple[int, int | None, str], ...]] = set()
    for card in choice.candidates:
        cards = [seat.card for seat in card.seats] or [card]
        key = tuple((usable_bytes(one), one.free_bytes, one.compute_capability) for one in cards)
        if key in seen:
            continue
        seen.add(key)
        budgets = [find_budget(one, margin_bytes, other_bytes, kept_bytes) for one in cards]
        if card.seats:
            seats = zip(cards, budgets, strict=True)
            card = replace(  # noqa: PLW2901  # the same cards, now with their budgets
                card, seats=tuple(Seat(card=one, budget_bytes=budget) for one, budget in seats)
            )
        yield card, sum(budgets)


def find_budget(card: Card, margin_bytes: int, other_bytes: int | None, kept_bytes: int = 0) -> int:
    """Return what one process may use: capacity less system reserved, others and margin. Bytes.

    `other_bytes` None takes what NVML says other processes hold, where the card is this machine's;
    `kept_bytes` are what the platform keeps and NVML does not say. Raises UsageError where no CUDA
    context fits.
    """
    usable = usable_bytes(card)
    if other_bytes is None:
        other_bytes = 0 if card.free_bytes is None else max(0, usable - card.free_bytes)
    budget = usable - other_bytes - margin_bytes - kept_bytes
    context = context_band(card).expected_bytes
    if budget < context:
        left = format_size(max(0, budget), up=False)
        raise UsageError(
            f"{card.name}: {left} are left for the process, less than the CUDA context alone takes "
            f"(about {format_size(context)})",
            hint="choose a larger card, or a smaller --margin or --other",
        )
    return budget


def grade(need: Band, budget_bytes: int, *, spills: bool) -> VerdictKind:
    """Return the verdict for a need and a budget; `spills` where the runtime does not fail."""
    if need.high_bytes <= budget_bytes:
        return VerdictKind.FITS
    if need.expected_bytes <= budget_bytes:
        return VerdictKind.TIGHT
    return VerdictKind.OFFLOAD if spills else VerdictKind.OOM


def offload_risk(need: Band, budget_bytes: int) -> float:
    """Return the probability that the need exceeds the budget, 0 to 1.

    The area above the budget of a two-piece normal distribution whose median is the expected need
    and whose 5 % and 95 % points are low and high.
    """
    distance = budget_bytes - need.expected_bytes
    side = (
        need.high_bytes - need.expected_bytes
        if distance >= 0
        else need.expected_bytes - need.low_bytes
    )
    if side == 0:
        return 0.0 if distance >= 0 else 1.0
    return 0.5 * math.erfc(distance * _Z95 / side / math.sqrt(2))


def judged_as(card: Card) -> str:
    """Return what a verdict calls the candidate it was reached on."""
    if card.seats and card.kind == "assumed":
        found = dict.fromkeys(seat.card.compute_capability for seat in card.seats)
        return f"compute capability {' and '.join(found)}"
    if card.kind == "assumed":  # a class or a size: its candidates differ in this alone
        return f"compute capability {card.compute_capability}"
    return card.name


def spills(settings: Settings) -> bool:
    """True where the platform's driver gives system memory instead of failing."""
    return settings.get("platform") in SPILLING_PLATFORMS
