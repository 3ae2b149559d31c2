"""What a CARD of the command line stands for, once it has been looked up."""

from __future__ import annotations

from vramplan.model import Card
from vramplan.quick_dataclass import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class CardChoice:
    """What a CARD of the command line stands for.

    `candidates` are the cards that a verdict has to hold on: one for a named card; for a class or a
    size one per compute capability, oldest first, all with the same capacity. Several cards are one
    candidate, whose seats they are.
    """

    label: str  # as asked for, in its plain form
    title: str
    candidates: tuple[Card, ...]
