"""What a report of nvidia-smi says, whichever its form: GPUs, MIG instances, who holds what."""

from __future__ import annotations

from vramplan.measurement.reading import DeviceMemory, ProcessMemory
from vramplan.quick_dataclass import dataclass

#: of a stranger's text no more GPUs, instances of one, or processes of one are kept
MOST_GPUS = 1000
MOST_PROCESSES = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class SmiGpu:
    """A GPU as nvidia-smi lists it, or a MIG instance of one; what a form does not tell is None.

    `untold` is what stands where the memory should (``Not Supported``). `instance` is the number
    of the GPU instance where this is one; `instances` are those of a whole GPU.
    """

    index: int
    name: str
    total_bytes: int | None = None
    used_bytes: int | None = None
    free_bytes: int | None = None
    reserved_bytes: int | None = None
    processes: tuple[ProcessMemory, ...] | None = None
    uuid: str | None = None
    instance: int | None = None
    instances: tuple[SmiGpu, ...] = ()
    untold: str | None = None

    @property
    def memory(self) -> DeviceMemory | None:
        """The memory as NVML would tell it, or None where the report does not tell it."""
        if self.total_bytes is None or self.used_bytes is None:
            return None
        free = self.free_bytes
        return DeviceMemory(
            total_bytes=self.total_bytes,
            used_bytes=self.used_bytes,
            free_bytes=self.total_bytes - self.used_bytes if free is None else free,
            reserved_bytes=self.reserved_bytes,
            processes=self.processes,
        )

    @property
    def place(self) -> str:
        """How it is named to a person: ``GPU 0``, ``GPU 0, MIG instance 1``."""
        if self.instance is None:
            return f"GPU {self.index}"
        return f"GPU {self.index}, MIG instance {self.instance}"

    @property
    def selector(self) -> str:
        """How ``--gpu`` takes it: ``0``, or ``0:1`` for an instance."""
        return f"{self.index}" if self.instance is None else f"{self.index}:{self.instance}"

    @property
    def tells_something(self) -> bool:
        """Whether any size of its own, of an instance or of a process is told."""
        return (
            self.used_bytes is not None
            or any(one.used_bytes is not None for one in self.processes or ())
            or any(one.tells_something for one in self.instances)
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class SmiReport:
    """What was printed; `remarks` say what of the text was taken, and what was not read."""

    gpus: tuple[SmiGpu, ...]
    driver: str | None = None
    remarks: tuple[str, ...] = ()

    @property
    def tells_something(self) -> bool:
        """Whether any size is told."""
        return any(one.tells_something for one in self.gpus)


def counted(number: int, noun: str, plural: str | None = None) -> str:
    """Return ``1 line`` or ``3 lines``."""
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"


def unread_remark(lines: list[str]) -> list[str]:
    """Return the sentence about lines that look like a report's and were not understood."""
    if not lines:
        return []
    shown = " ".join(lines[0].split())[:80]
    return [f"{counted(len(lines), 'line')} of the report not understood, the first: {shown}"]


def last_of(number: int, when: str | None) -> list[str]:
    """Return the sentence that says which of several reports is read."""
    if number < 2:
        return []
    time = f" ({when})" if when else ""
    others = "the other is" if number == 2 else f"the other {number - 1} are"
    return [f"the last of {number} reports in the text{time}; {others} not read"]
