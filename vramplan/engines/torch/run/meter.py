"""Measures a run stretch by stretch: one component at work in one phase, with its own peaks.

Borders need no synchronisation: torch's counters change on the CPU, when memory is asked for, and
the driver's when torch takes a segment.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Protocol

from vramplan.measurement.reading import DeviceMemory, Reading, TorchMemory
from vramplan.measurement.run import Stretch
from vramplan.probe.protocol import Probe

#: the pieces of one stretch that are remembered; a long answer goes on in the last
_MOST_WINDOWS = 2_000


class Counters(Probe, Protocol):
    """torch's own counters of a device, and what is asked of that device beside running code."""

    def reset_peaks(self) -> None:
        """Let peaks begin at what is held now."""

    def open_context(self) -> None:
        """Create the CUDA context, and leave nothing in the allocator."""

    def keep_within_free(self) -> int:
        """Keep torch within what the device has free now, and return that, bytes."""

    def settle(self) -> None:
        """Wait until the device has done all it was asked."""


#: what a process holds of a device, or None where the driver does not tell
OwnShare = Callable[[DeviceMemory], int | None]


@dataclass(slots=True)
class _Sum:
    """A stretch that may come again: every denoising step goes through the UNet."""

    phase: str
    component: str
    turn: str
    began_s: float
    ended_s: float = 0.0
    torch: TorchMemory | None = None
    reading: Reading | None = None
    device_peak_bytes: int | None = None
    process_bytes: int | None = None
    process_peak_bytes: int | None = None
    windows: list[tuple[float, float]] = field(default_factory=list)
    is_told: bool = False


class Meter:
    """Keeps account of who works in which phase; `tell` hears each stretch, with its windows.

    `tell_phase` and `tell_end` hear a turn, a phase and its component: the one that works first,
    and at the end the one that was loaded, else nothing.
    """

    def __init__(
        self,
        *,
        counters: Counters | None,
        device: Probe | None,
        own_share: OwnShare,
        tell: Callable[[Stretch, list[tuple[float, float]]], None],
        tell_phase: Callable[[str, str, str], None],
        tell_end: Callable[[str, str, str], None],
    ) -> None:
        self._counters = counters
        self._device = device
        self._own_share = own_share
        self._tell = tell
        self._tell_phase = tell_phase
        self._tell_end = tell_end
        self._sums: dict[tuple[str, str, str], _Sum] = {}
        self._reserved = -1
        self._now: tuple[_Sum, float] | None = None
        self._told = ("", "", "")
        self.turn = "load"
        self.phase = "load"
        self.component = "pipeline"

    def begin(self, phase: str, component: str) -> None:
        """End the stretch under way, begin another."""
        self._close()
        told = (self.turn, phase, component if self.turn == "load" else "")
        if told != self._told:
            self._end_phase()
            self._told = told
            self._tell_phase(self.turn, phase, component)
        self.phase, self.component = phase, component
        key = (self.turn, phase, component)
        now = time.monotonic()
        if key not in self._sums:
            self._sums[key] = _Sum(phase, component, self.turn, now)
        if self._counters is not None:
            self._counters.reset_peaks()
        self._now = (self._sums[key], now)

    def end(self) -> None:
        """End the stretch under way, and tell all that was not told yet."""
        self._close()
        self._end_phase()

    def _end_phase(self) -> None:
        """Tell what the phase came to; whoever hears of its end may look before the next begins."""
        if all(one.is_told for one in self._sums.values()):
            return
        self._tell_all()
        self._tell_end(*self._told)

    def _tell_all(self) -> None:
        """Tell the stretches that have changed since they were last told."""
        for one in self._sums.values():
            if not one.is_told:
                one.is_told = True
                self._tell(_stretch(one), list(one.windows))

    def _close(self) -> None:
        if self._now is None:
            return
        (one, began), self._now = self._now, None
        one.is_told = False
        if self._counters is not None:
            one.torch = _together(one.torch, self._counters.read().torch)
        self._look(one)
        one.ended_s = time.monotonic()
        if len(one.windows) < _MOST_WINDOWS:
            one.windows.append((began, one.ended_s))
        else:
            one.windows[-1] = (one.windows[-1][0], one.ended_s)

    def _look(self, one: _Sum) -> None:
        """Ask the driver, where it can have changed: asking takes longer than a small component."""
        if self._device is None:
            return
        reserved = one.torch.reserved_bytes if one.torch else 0
        if one.reading is not None and reserved == self._reserved:
            return
        self._reserved = reserved
        reading = self._device.read()
        one.reading = reading
        if reading.device is None:
            return
        own = self._own_share(reading.device)
        one.process_bytes = own
        one.device_peak_bytes = max(one.device_peak_bytes or 0, reading.device.used_bytes)
        if own is not None:
            one.process_peak_bytes = max(one.process_peak_bytes or 0, own)


def _together(before: TorchMemory | None, now: TorchMemory | None) -> TorchMemory | None:
    """Return the counters as they are now, with the higher of two peaks."""
    if before is None or now is None:
        return now
    return replace(
        now,
        allocated_peak_bytes=max(before.allocated_peak_bytes, now.allocated_peak_bytes),
        reserved_peak_bytes=max(before.reserved_peak_bytes, now.reserved_peak_bytes),
        requested_peak_bytes=max(before.requested_peak_bytes, now.requested_peak_bytes),
    )


def _stretch(one: _Sum) -> Stretch:
    device = one.reading.device if one.reading else None
    return Stretch(
        phase=one.phase,
        component=one.component,
        turn=one.turn,
        began_s=one.began_s,
        ended_s=one.ended_s,
        torch=one.torch,
        device_used_bytes=device.used_bytes if device else None,
        process_used_bytes=one.process_bytes,
        device_peak_bytes=one.device_peak_bytes,
        process_peak_bytes=one.process_peak_bytes,
    )
