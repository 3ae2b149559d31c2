"""The CUDA context: what a process takes before its first tensor, outside every torch counter.

The driver keeps local memory (stack and spilled registers) for every thread that the GPU can hold
at once: a size per thread, which the kernel with the greatest need sets, times the threads of one
multiprocessor, times the multiprocessors. Page tables, library handles and the kernels that were
loaded come on top. So for a torch process

    context = BASE + THREAD * multiprocessors * resident threads of one

and its two constants are a least-squares fit of the fifteen out-of-memory messages of
``profiles/cuda_contexts.yaml`` marked `fit` (nine cards, from 15 to 188 multiprocessors). Their
2,162 bytes a thread are the 1,024 that CUDA sets by default and what torch's kernels need more. The
band is what those messages say of it, from 0.757 to 1.158 times what the rule gives (the work
decides which kernels are loaded), and a message's own rounding of 15 MiB. Every card of the fit has
its messages within 60 MiB of ours, or on both sides of ours; single messages on large GPUs are up
to 82 MiB off (RTX 5090 499 MiB, H200 525 and 680; ours 581 and 600). Of the 39 messages kept out of
the fit 37 are inside the band. ``python -m tools.contexts`` shows each and finds the constants
again.

A ggml engine has the same threads and few kernels. That it takes the term with the threads alone is
assumed; it agrees with the two reports there are: 154 MiB with the engine's pools on an RTX 5070
laptop (ours 114 without them), 451 to 456 on RTX 4090s (ours 405; ggml-org/llama.cpp#15860). Its
band goes from the low of that to the high of a torch process.

Where a GPU of the same architecture and size was measured, its figures are taken (`learned`).
"""

from __future__ import annotations

from enum import Enum
from functools import lru_cache

from vramplan.budget.learned import LearnedBand, learned
from vramplan.catalog.multiprocessors import nearest_multiprocessors, resident_threads
from vramplan.model import GPU, Band, Card, Line, LineKind, Origin
from vramplan.units import MIB

#: found by `python -m tools.contexts`, which checks them
BASE_BYTES = 44_500_000
THREAD_BYTES = 2162
LOW_PERMILLE = 757
HIGH_PERMILLE = 1158
#: of a message: two figures of a hundredth of a GiB, or three
ROUNDING_BYTES = 15 * MIB


class Process(Enum):
    """What kind of process holds the context."""

    TORCH = "torch"
    GGML = "ggml"


def context_band(card: Card, process: Process = Process.TORCH) -> Band:
    """Return the band of one process's CUDA context on a card, bytes.

    Where nobody told the card's multiprocessors, the band goes from the fewest to the most of the
    catalogued cards of its compute capability and about its memory.
    """
    known = _measured(card, process)
    if known is not None:
        return known.band
    fewest, middle, most = _multiprocessors(card)
    threads = resident_threads(card.compute_capability)
    base = BASE_BYTES if process is Process.TORCH else 0
    low = (base + THREAD_BYTES * fewest * threads) * LOW_PERMILLE // 1000
    high = (BASE_BYTES + THREAD_BYTES * most * threads) * HIGH_PERMILLE // 1000
    return Band(
        low_bytes=max(0, low - ROUNDING_BYTES),
        expected_bytes=base + THREAD_BYTES * middle * threads,
        high_bytes=high + ROUNDING_BYTES,
    )


def context_source(card: Card, process: Process = Process.TORCH) -> tuple[Origin, str]:
    """Return where the band comes from."""
    known = _measured(card, process)
    if known is not None:
        return Origin.MEASURED, known.source
    fewest, _, most = _multiprocessors(card)
    counts = f"{most}" if fewest == most else f"{fewest} to {most}"
    if card.multiprocessors is None:
        counts += " (assumed: those of like cards)"
    if process is Process.GGML:
        return Origin.ASSUMED, (
            f"the driver's local memory for the threads of {counts} multiprocessors, as out-of-"
            "memory messages of torch tell it; that an engine's few kernels add nothing is assumed"
        )
    return Origin.PUBLISHED, (
        f"fitted to public out-of-memory messages on nine kinds of GPU, by the threads of {counts} "
        "multiprocessors; not measured by vramplan on this GPU yet"
    )


def context_line(card: Card, process: Process = Process.TORCH) -> Line:
    """Return the budget's line for the CUDA context."""
    origin, source = context_source(card, process)
    return Line(
        kind=LineKind.CUDA_CONTEXT,
        device=GPU,
        name="CUDA context",
        phase=None,
        component=None,
        band=context_band(card, process),
        origin=origin,
        source=source,
    )


def context_key(compute_capability: str, multiprocessors: int | None) -> str:
    """Return what a measured context is kept under: ``8.6/28``, ``8.6`` where the size is unknown.

    What was measured on one GPU says nothing of a larger one of its architecture.
    """
    return (
        compute_capability
        if multiprocessors is None
        else (f"{compute_capability}/{multiprocessors}")
    )


def _measured(card: Card, process: Process) -> LearnedBand | None:
    if process is not Process.TORCH:  # runs that are learned from are torch's
        return None
    return learned().contexts.get(context_key(card.compute_capability, card.multiprocessors))


def _multiprocessors(card: Card) -> tuple[int, int, int]:
    """Return the fewest, the middle and the most multiprocessors that a card may have."""
    if card.multiprocessors is not None:
        return (card.multiprocessors,) * 3
    counts = _of_like_cards(card.compute_capability, card.total_bytes - card.reserved_bytes)
    return counts[0], counts[len(counts) // 2], counts[-1]


@lru_cache(maxsize=256)  # architectures and sizes of cards
def _of_like_cards(compute_capability: str, usable_bytes: int) -> list[int]:
    """Return the multiprocessors of shipped cards like this one: its capability's, if there are.

    Those of about its memory; all of them where that is not known (0).
    """
    from vramplan.catalog import load_catalog  # only for a card that the catalogue does not have

    cards = [card for card in load_catalog().cards.values() if not card.shares_memory]
    same = [card for card in cards if card.compute_capability == compute_capability]
    if not usable_bytes:
        return sorted(card.multiprocessors or 0 for card in same or cards if card.multiprocessors)
    return nearest_multiprocessors(same or cards, usable_bytes)
