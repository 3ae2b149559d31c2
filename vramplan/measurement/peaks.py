"""The highest of what was seen of a card: as a whole, and of each process."""

from __future__ import annotations

from dataclasses import dataclass, field

from vramplan.measurement.reading import DeviceMemory, ProcessMemory, Reading

#: processes that are remembered after they have gone
_MOST = 10_000


@dataclass(slots=True)
class Peaks:
    """What has been seen of one card since it is looked at; times are on the readings' clock."""

    looks: int = 0
    began_s: float = 0.0
    ended_s: float = 0.0
    used_bytes: int = 0
    used_at_s: float = 0.0
    processes: dict[tuple[int, str], ProcessMemory] = field(default_factory=dict)
    last: DeviceMemory | None = None

    def take(self, reading: Reading) -> None:
        """Take a reading in; one without the device counts as none."""
        if reading.device is None:
            return
        if not self.looks:
            self.began_s = reading.at_s
        self.looks += 1
        self.ended_s = reading.at_s
        self.last = reading.device
        if reading.device.used_bytes > self.used_bytes:
            self.used_bytes, self.used_at_s = reading.device.used_bytes, reading.at_s
        for one in reading.device.processes or ():
            key = (one.pid, one.name)
            known = self.processes.get(key)
            is_higher = known is None or (one.used_bytes or 0) > (known.used_bytes or 0)
            if is_higher and (known or len(self.processes) < _MOST):
                self.processes[key] = one

    def ranked(self) -> list[ProcessMemory]:
        """Return every process at its highest, the largest first."""
        return sorted(self.processes.values(), key=lambda one: -(one.used_bytes or 0))
