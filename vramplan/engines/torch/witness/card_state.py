"""The file that a run's processes share: the pretended cards, and what is in use of them.

The layout is that of ``stand_ins/card.h``.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from vramplan.errors import MeasurementError

#: the variables by which a process finds its cards, and the real cuDNN
STATE_VARIABLE = "VRAMPLAN_PRETENDED_CARDS"
CUDNN_VARIABLE = "VRAMPLAN_PRETENDED_CUDNN"
#: "none": what a program loads with `from_pretrained` is met with configs alone, of this file
WEIGHTS_VARIABLE = "VRAMPLAN_PRETENDED_WEIGHTS"
CONFIGS_FILE = "configs.json"

MOST_CARDS = 16
_MOST_PROCESSES = 256
_MOST_NOTES = 32
_MAGIC = b"vrpcard\0"
_LAYOUT = 1

_HEADER = struct.Struct("<8sIIQ")
_CARD = struct.Struct("<96s6i4Q4Q")
_PROCESS = struct.Struct(f"<iIQ{MOST_CARDS}Q")
_NOTE = struct.Struct("<64s")
_NOTES_AT = _HEADER.size + MOST_CARDS * _CARD.size + _MOST_PROCESSES * _PROCESS.size
STATE_BYTES = _NOTES_AT + _MOST_NOTES * _NOTE.size

#: the largest copy between host and card that is really made
COPIED_BYTES = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class PretendedCard:
    """A card as CUDA describes it; `total_bytes` is what CUDA calls total.

    `reserved_bytes` is what NVML's total has beyond it; `context_bytes` is taken by every process.
    """

    name: str
    compute_capability: tuple[int, int]
    multiprocessors: int
    total_bytes: int
    context_bytes: int = 0
    reserved_bytes: int = 0
    l2_bytes: int = 4 << 20
    bus_bits: int = 256
    clock_khz: int = 1_500_000
    memory_clock_khz: int = 5_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class CardUse:
    """What was in use of a card: now, at most, and how often something did not fit."""

    used_bytes: int
    peak_bytes: int
    refused: int
    refused_bytes: int


def write_state(
    path: Path, cards: Sequence[PretendedCard], *, copied_bytes: int = COPIED_BYTES
) -> None:
    """Make the file of a run that has `cards`."""
    assert 0 < len(cards) <= MOST_CARDS
    packed = b"".join(_pack(card) for card in cards)
    head = _HEADER.pack(_MAGIC, _LAYOUT, len(cards), copied_bytes)
    path.write_bytes((head + packed).ljust(STATE_BYTES, b"\0"))
    path.chmod(0o600)


def _pack(card: PretendedCard) -> bytes:
    return _CARD.pack(
        card.name.encode("ascii", "replace")[:95],
        *card.compute_capability,
        card.multiprocessors,
        card.bus_bits,
        card.clock_khz,
        card.memory_clock_khz,
        card.total_bytes,
        card.reserved_bytes,
        card.context_bytes,
        card.l2_bytes,
        *(0, 0, 0, 0),
    )


def read_use(path: Path) -> list[CardUse]:
    """Return what was in use of each card.

    Raises MeasurementError for a file that is none of a run's.
    """
    data = path.read_bytes()
    if len(data) < STATE_BYTES or data[:8] != _MAGIC:
        raise MeasurementError(f"{path}: not the state of pretended cards")
    count = min(_HEADER.unpack_from(data)[2], MOST_CARDS)
    found = []
    for place in range(count):
        fields = _CARD.unpack_from(data, _HEADER.size + place * _CARD.size)
        used, peak, refused, refused_bytes = fields[-4:]
        found.append(
            CardUse(used_bytes=used, peak_bytes=peak, refused=refused, refused_bytes=refused_bytes)
        )
    return found


def read_holders(path: Path) -> dict[int, int]:
    """Return the processes that have memory on the cards, or left without giving it back.

    By their numbers, with what they have on all cards together.
    """
    data = path.read_bytes()
    at = _HEADER.size + MOST_CARDS * _CARD.size
    found = (_PROCESS.unpack_from(data, at + n * _PROCESS.size) for n in range(_MOST_PROCESSES))
    return {one[0]: sum(one[3:]) for one in found if one[0] > 0}


def read_notes(path: Path) -> list[str]:
    """Return the functions of NVIDIA's that were asked for and refused, or answered with 0."""
    data = path.read_bytes()[_NOTES_AT:STATE_BYTES]
    notes = [one.partition(b"\0")[0] for (one,) in _NOTE.iter_unpack(data)]
    return [note.decode("ascii", "replace") for note in notes if note]


def state_path() -> Path | None:
    """Return this process's file; None where no card is pretended."""
    named = os.environ.get(STATE_VARIABLE)
    return Path(named) if named else None
