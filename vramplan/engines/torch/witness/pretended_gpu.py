"""A pretended card in a GPU's place, for the profiler to measure on as on any other."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from types import TracebackType
from typing import Self

from vramplan.engines.torch.witness import card_state, torch_files
from vramplan.engines.torch.witness.card_description import describe_card
from vramplan.engines.torch.witness.pretended_run import WATCH_VARIABLE, pretended_environment
from vramplan.measurement.reading import DeviceMemory, ProcessMemory, Reading
from vramplan.model import Card
from vramplan.probe.nvml import Gpu

#: what the stand-in for NVML answers for the first card, and for the driver
UUID = "GPU-70726574-656e-6465-642d-636172642d30"
DRIVER = "pretended"


def pretend_gpu(card: Card) -> Gpu:
    """Return a card as the driver would list it, with nobody on it.

    Raises UsageError for a card that cannot be pretended, MissingError where this Python has no
    torch for it.
    """
    described = describe_card(card)
    torch_files.find_torch()
    return Gpu(
        index=0,
        name=described.name,
        uuid=UUID,
        total_bytes=described.total_bytes + described.reserved_bytes,
        used_bytes=0,
        free_bytes=described.total_bytes,
        reserved_bytes=described.reserved_bytes,
        compute_capability=card.compute_capability,
        bandwidth_bytes_per_s=0,
        multiprocessors=described.multiprocessors,
    )


class PretendedGpu:
    """The card while processes use it, and eyes on it; a context manager."""

    def __init__(self, card: Card) -> None:
        self._card = describe_card(card)
        self._folder = TemporaryDirectory(prefix="vramplan-")
        self._state = Path(self._folder.name) / "cards"

    def __enter__(self) -> Self:
        card_state.write_state(self._state, [self._card])
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        problem: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._folder.cleanup()

    def environment(self, base: Mapping[str, str]) -> dict[str, str]:
        """Return `base` with what lets a process find the card; nobody watches it from inside."""
        return {**pretended_environment(self._state, base), WATCH_VARIABLE: "off"}

    def read(self) -> Reading:
        """Return the card's memory and who holds it, as the driver's would be read."""
        memory = self.read_memory()
        held = self._holders()
        return Reading(
            at_s=time.monotonic(),
            device=DeviceMemory(
                total_bytes=memory.total_bytes,
                used_bytes=memory.used_bytes,
                free_bytes=memory.free_bytes,
                reserved_bytes=memory.reserved_bytes,
                used_with_reserve_bytes=memory.used_bytes + (memory.reserved_bytes or 0),
                processes=tuple(
                    ProcessMemory(pid=pid, name=_name(pid), used_bytes=used, kind="C")
                    for pid, used in held.items()
                ),
            ),
        )

    def read_memory(self) -> DeviceMemory:
        """Return the card's memory alone."""
        used = sum(self._holders().values())
        total, reserved = self._card.total_bytes, self._card.reserved_bytes
        return DeviceMemory(
            total_bytes=total + reserved,
            used_bytes=used,
            free_bytes=max(0, total - used),
            reserved_bytes=reserved,
        )

    def _holders(self) -> dict[int, int]:
        """Return who is alive and holds memory: a driver takes back what the dead had at once."""
        held = card_state.read_holders(self._state)
        return {pid: used for pid, used in held.items() if Path(f"/proc/{pid}").exists()}


def _name(pid: int) -> str:
    try:
        return os.fsdecode(Path(f"/proc/{pid}/cmdline").read_bytes().partition(b"\0")[0])
    except OSError:
        return "?"
