"""A recorded run as a probe: what was seen then, look by look."""

from __future__ import annotations

from collections.abc import Iterator

from vramplan.errors import MeasurementError
from vramplan.measurement.reading import DeviceMemory, ProcessMemory, Reading
from vramplan.measurement.run import MeasuredGpu, Run, Stretch


class RecordedProbe:
    """Replays a run: the card before it, at the end of each stretch, and with all still held.

    `is_over` says that nothing is left; reading on gives the last look again. Raises
    MeasurementError for a run that did not look at a card.
    """

    def __init__(self, run: Run) -> None:
        if run.gpu is None or not any(_readings(run, run.gpu)):
            raise MeasurementError(f"the run of {run.pipeline} has no look at a card to replay")
        self._readings = list(_readings(run, run.gpu))
        self._at = 0

    @property
    def is_over(self) -> bool:
        """True where the last look was given."""
        return self._at >= len(self._readings)

    def read(self) -> Reading:
        """Return the next look."""
        reading = self._readings[min(self._at, len(self._readings) - 1)]
        self._at += 1
        return reading


def _readings(run: Run, gpu: MeasuredGpu) -> Iterator[Reading]:
    first = run.stretches[0].began_s if run.stretches else 0.0
    last = run.stretches[-1].ended_s if run.stretches else 0.0
    if run.before is not None:
        yield Reading(at_s=first, device=run.before)
    for one in run.stretches:
        if one.device_peak_bytes is not None:
            yield Reading(at_s=one.ended_s, device=_device(one, gpu), torch=one.torch)
    if run.held is not None and run.held.device is not None:
        yield Reading(at_s=last, device=run.held.device, torch=run.held.torch)


def _device(one: Stretch, gpu: MeasuredGpu) -> DeviceMemory:
    used = one.device_peak_bytes or 0
    processes = None
    if one.process_peak_bytes is not None:
        name = f"{one.phase} {one.component}"
        processes = (ProcessMemory(pid=0, name=name, used_bytes=one.process_peak_bytes),)
    return DeviceMemory(
        total_bytes=gpu.total_bytes,
        used_bytes=used,
        free_bytes=max(0, gpu.total_bytes - used - (gpu.reserved_bytes or 0)),
        reserved_bytes=gpu.reserved_bytes,
        processes=processes,
    )
