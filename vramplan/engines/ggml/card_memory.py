"""The memory of cards as an engine sees it before it loads anything."""

from __future__ import annotations

from collections.abc import Sequence

from vramplan.quick_dataclass import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class CardMemory:
    """What an engine sees of a card, or of several together, of which `each` is one; bytes.

    `context_bytes` is what its own CUDA context will take of what is free; `is_remote`: another
    machine has it, and serves it over RPC.
    """

    total_bytes: int
    free_bytes: int
    context_bytes: int = 0
    is_remote: bool = False
    each: tuple[CardMemory, ...] = ()

    @property
    def cards(self) -> tuple[CardMemory, ...]:
        """Return the cards one by one."""
        return self.each or (self,)

    @property
    def beside_context_bytes(self) -> int:
        """Return what is free once the CUDA context is there."""
        return max(self.free_bytes - self.context_bytes, 0)


def together(cards: Sequence[CardMemory]) -> CardMemory:
    """Return what several cards have together; one is itself."""
    if len(cards) == 1:
        return cards[0]
    return CardMemory(
        total_bytes=sum(card.total_bytes for card in cards),
        free_bytes=sum(card.free_bytes for card in cards),
        context_bytes=sum(card.context_bytes for card in cards),
        each=tuple(cards),
    )
