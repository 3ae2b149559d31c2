"""The card at the end of each phase, by NVML and at once by nvidia-smi, while nothing changes."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Protocol

from vramplan.errors import MeasurementError
from vramplan.measurement.reading import DeviceMemory
from vramplan.measurement.run import PhaseEnd
from vramplan.probe.protocol import Probe
from vramplan.probe.smi_probe import SmiLook

#: a run has some ten; one whose phases take turns without end is not to wait for each
_MOST = 100


class SmiEyes(Protocol):
    """nvidia-smi, asked until it fails; `problem` says why it did."""

    problem: str | None

    def look(self) -> SmiLook | None:
        """Return what it says now, or None where it does not."""


class PhaseEnds:
    """Takes down the ends of one run's phases; `own` tells what of a card the run holds.

    Nothing is taken where nvidia-smi is not there, nor of the warm turn: it holds what the cold one
    did, and each look keeps a GPU waiting. Whatever fails here, the run goes on.
    """

    def __init__(
        self,
        probe: Probe | None,
        smi: SmiEyes | None,
        own: Callable[[DeviceMemory], int | None],
    ) -> None:
        self._probe = probe
        self._smi = smi
        self._own = own
        self.taken: list[PhaseEnd] = []

    def take(self, turn: str, phase: str, component: str) -> None:
        """Look now; `component` is empty where several work in the phase."""
        if self._probe is None or self._smi is None or turn == "warm":
            return
        if len(self.taken) >= _MOST:
            return
        try:
            device = self._probe.read().device
        except MeasurementError:  # a lost GPU is found out by the run itself
            return
        at_s = time.monotonic()
        shown = self._smi.look() if device is not None else None
        if device is None or shown is None:
            return
        self.taken.append(
            PhaseEnd(
                phase=phase,
                component=component,
                turn=turn,
                at_s=at_s,
                device_used_bytes=device.used_bytes,
                process_used_bytes=self._own(device),
                smi_used_bytes=shown.memory.used_bytes,
                smi_process_bytes=self._own(shown.memory),
                smi=shown.text,
            )
        )

    @property
    def notes(self) -> list[str]:
        """What a reader must know where a phase's end is missing."""
        if self._smi is not None and self._smi.problem is not None:
            why = self._smi.problem
            return [f"nvidia-smi was not asked again at the ends of phases: {why}"]
        if len(self.taken) >= _MOST:
            return [f"nvidia-smi was asked at the ends of the first {_MOST} phases alone"]
        return []
