"""What can be seen of a GPU's memory at one instant."""

from __future__ import annotations

from vramplan.quick_dataclass import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessMemory:
    """A process that uses a GPU.

    `used_bytes` is None where the driver does not tell (WSL, Windows with WDDM, some containers);
    `kind` is nvidia-smi's: C computes, G draws.
    """

    pid: int
    name: str
    used_bytes: int | None
    kind: str = "C"


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceMemory:
    """A whole card as the driver counts it.

    total = used + free + reserved where `reserved_bytes` (what the system keeps) is told; where it
    is None, `used_bytes` has it inside. `used_with_reserve_bytes` is version 1 of NVML's call.
    `processes` is None where the driver does not list them.
    """

    total_bytes: int
    used_bytes: int
    free_bytes: int
    reserved_bytes: int | None
    used_with_reserve_bytes: int | None = None
    processes: tuple[ProcessMemory, ...] | None = None

    def process(self, pid: int) -> ProcessMemory | None:
        """Return the process `pid`, or None where it is not listed."""
        return next((one for one in self.processes or () if one.pid == pid), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class TorchMemory:
    """torch's own counters (``torch.cuda.memory_stats``): now, and peaks since they were reset."""

    allocated_bytes: int
    reserved_bytes: int
    allocated_peak_bytes: int
    reserved_peak_bytes: int
    requested_peak_bytes: int
    inactive_split_bytes: int
    retries: int  # num_alloc_retries


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """One look: `at_s` on the monotonic clock, and what each probe could see."""

    at_s: float
    device: DeviceMemory | None = None
    torch: TorchMemory | None = None
