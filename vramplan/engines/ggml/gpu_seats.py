"""The GPUs that a budget is drawn up for, with what is known of each before anything is loaded."""

from __future__ import annotations

from collections.abc import Sequence

from vramplan.budget.cuda_context import Process, context_band, context_source
from vramplan.catalog import usable_bytes
from vramplan.engines.ggml.card_memory import CardMemory, together
from vramplan.model import Band, Card, Origin
from vramplan.quick_dataclass import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Gpu:
    """One GPU: its architecture, its CUDA context, and what a process may use of it.

    Bytes are None where no card was named. `is_remote`: another machine serves it over RPC.
    """

    compute_capability: str
    context: Band
    context_origin: Origin
    context_source: str
    name: str = ""
    title: str = ""
    total_bytes: int | None = None
    budget_bytes: int | None = None
    is_remote: bool = False

    @property
    def memory(self) -> CardMemory | None:
        """Return what the engine sees of it."""
        if self.total_bytes is None or self.budget_bytes is None:
            return None
        return CardMemory(
            total_bytes=self.total_bytes,
            free_bytes=self.budget_bytes,
            context_bytes=self.context.expected_bytes,
            is_remote=self.is_remote,
        )


def gpus_of(card: Card, budget_bytes: int | None = None) -> tuple[Gpu, ...]:
    """Return the GPUs that `card` stands for; of several each with its own budget.

    Without a budget one card has no bytes, and each of several all of its own.
    """
    if not card.seats:
        return (_gpu(card, usable_bytes(card) if budget_bytes is not None else None, budget_bytes),)
    return tuple(
        _gpu(seat.card, usable_bytes(seat.card), seat.budget_bytes or usable_bytes(seat.card))
        for seat in card.seats
    )


def _gpu(card: Card, total_bytes: int | None, budget_bytes: int | None) -> Gpu:
    origin, source = context_source(card, Process.GGML)
    return Gpu(
        compute_capability=card.compute_capability,
        context=context_band(card, Process.GGML),
        context_origin=origin,
        context_source=source,
        name=card.name,
        title=card.title,
        total_bytes=total_bytes,
        budget_bytes=budget_bytes,
        is_remote=card.is_remote,
    )


def memory_of(gpus: Sequence[Gpu]) -> CardMemory | None:
    """Return what the engine sees of the GPUs, or None where no card was named."""
    known = [memory for gpu in gpus if (memory := gpu.memory) is not None]
    return together(known) if known else None


def oldest_capability(gpus: Sequence[Gpu]) -> str:
    """Return the compute capability that all of them have: what it decides holds everywhere."""
    return min((gpu.compute_capability for gpu in gpus), key=_numbers)


def _numbers(capability: str) -> tuple[int, ...]:
    return tuple(int(part) for part in capability.split("."))
