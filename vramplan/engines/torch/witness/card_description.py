"""A card of the catalogue as CUDA would describe it to a program."""

from __future__ import annotations

from vramplan.budget.cuda_context import context_band
from vramplan.engines.torch.attention_kernel import parse_capability
from vramplan.engines.torch.witness.card_state import PretendedCard
from vramplan.errors import UsageError
from vramplan.model import Card

#: what no card file has and cuDNN's heuristics may look at: L2 cache (bytes), memory bus (bits),
#: clocks of the multiprocessors and of the memory (kHz). Those of one card of each architecture,
#: from NVIDIA's data sheets and whitepapers: T4, A100 80GB, A10G, Jetson AGX Orin, RTX 4090, H100
#: SXM, B200, RTX 5090; taken for all cards of the architecture
_OF_ARCHITECTURE = {
    "7.5": (4 << 20, 256, 1_590_000, 5_001_000),
    "8.0": (40 << 20, 5120, 1_410_000, 1_593_000),
    "8.6": (6 << 20, 384, 1_710_000, 6_251_000),
    "8.7": (4 << 20, 256, 1_300_000, 3_199_000),
    "8.9": (72 << 20, 384, 2_520_000, 10_501_000),
    "9.0": (50 << 20, 5120, 1_980_000, 2_619_000),
    "10.0": (126 << 20, 8192, 1_965_000, 3_996_000),
    "12.0": (96 << 20, 512, 2_407_000, 14_001_000),
}
#: an architecture without a row: that of the nearest older one
_FALLBACK = {"10.3": "10.0", "11.0": "10.0", "12.1": "12.0"}

#: CUDA 13 and torch's builds for it have no kernels for older ones (CUDA 13.0 release notes,
#: "Deprecated architectures": Maxwell, Pascal and Volta)
OLDEST = (7, 5)

#: a card of unknown size: the multiprocessors of an RTX 3060
_MULTIPROCESSORS = 28


def has_kernels(card: Card) -> bool:
    """True where torch's builds for CUDA 13 run on a card of this architecture."""
    return parse_capability(card.compute_capability) >= OLDEST


def describe_card(card: Card) -> PretendedCard:
    """Return what is pretended for a card; its CUDA context takes the middle of its band.

    Raises UsageError for a card that torch for CUDA 13 does not run on, or that is smaller than its
    context.
    """
    if not has_kernels(card):
        message = f"{card.title}: torch for CUDA 13 has no kernels for compute capability"
        hint = "vramplan check and estimate know older cards"
        raise UsageError(f"{message} {card.compute_capability}", hint=hint)
    context = context_band(card).expected_bytes
    total = card.total_bytes - card.reserved_bytes
    if total <= context:
        message = (
            f"{card.title}: {total >> 20} MiB are less than a CUDA context, {context >> 20} MiB"
        )
        raise UsageError(message)
    capability = card.compute_capability
    known = _OF_ARCHITECTURE.get(_FALLBACK.get(capability, capability), _OF_ARCHITECTURE["8.6"])
    l2_bytes, bus_bits, clock_khz, memory_clock_khz = known
    return PretendedCard(
        name=_printed_name(card),
        compute_capability=parse_capability(capability),
        multiprocessors=card.multiprocessors or _MULTIPROCESSORS,
        total_bytes=total,
        context_bytes=context,
        reserved_bytes=card.reserved_bytes,
        l2_bytes=l2_bytes,
        bus_bits=bus_bits,
        clock_khz=clock_khz,
        memory_clock_khz=memory_clock_khz,
    )


def _printed_name(card: Card) -> str:
    """Return the name as a driver prints it; a class or a size is no card that is sold."""
    return f"pretended {card.name}" if card.kind == "assumed" else card.title
