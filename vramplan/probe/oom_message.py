"""What torch says when a GPU's memory is used up, in each of its forms.

Since 2.1 the message tells what the process has in use by NVML, other libraries included, and
names the other processes (pytorch/pytorch#99699); before, what torch has reserved (``cached``, up
to 1.3, is what is reserved and not allocated: THCCachingAllocator); with cudaMallocAsync, which
ComfyUI takes by default, what is allocated and the device's limit (c10, CUDAMallocAsyncAllocator).
ROCm's and XPU's builds say the same of theirs. Sizes are printed with two decimals, so one in GiB
is right to 5 MiB.
"""

from __future__ import annotations

import re

from vramplan.errors import MeasurementError
from vramplan.quick_dataclass import dataclass, replace
from vramplan.units import GIB, KIB, MIB, format_size

_MOST_PROCESSES = 1000
_MOST_MESSAGES = 10_000
#: of a message no more is looked at: a hundred named processes have some 5 KB
_LONGEST = 20_000
#: two figures of one message that are rounded each may differ by this
_ROUNDING = 12 * MIB

#: where NVML does not tell a process's memory it says -1, which torch prints as 2^64 bytes
_MOST_MEMORY = 1 << 60

_UNITS = {
    "bytes": 1,
    "byte": 1,
    "KiB": KIB,
    "MiB": MIB,
    "GiB": GIB,
    "KB": KIB,
    "MB": MIB,
    "GB": GIB,
}
_SIZE = r"([0-9]{1,15}(?:\.[0-9]{1,4})?)\s{0,3}(bytes?|[KMG]i?B)"
_START = re.compile(r"\bTried to allocate\b|Allocation on device\b|PyTorch CUDA memory summary")
_ASKED = re.compile(rf"Tried to allocate {_SIZE}")
#: since 2.1; "capacty" until 2.2
_CAPACITY = re.compile(
    rf"(?:GPU|NPU) ([0-9]{{1,3}}) has a total capaci?ty of {_SIZE} of which {_SIZE} is free"
)
_ALLOWED = re.compile(rf"{_SIZE} allowed;")
_THIS = re.compile(rf"this process has {_SIZE} memory in use")
_PROCESS = re.compile(rf"(?<!this )\bProcess ([0-9]{{1,10}}) has {_SIZE} memory in use")
_ALLOCATED = re.compile(rf"Of the allocated memory {_SIZE} is allocated by PyTorch")
_POOLS = re.compile(rf"with {_SIZE} allocated in private pools")
_UNALLOCATED = re.compile(rf"and {_SIZE} is reserved by PyTorch but unallocated")
#: up to 2.0
_OLD = re.compile(
    rf"\((?:GPU|NPU) ([0-9]{{1,3}});\s?{_SIZE} total capacity;\s?{_SIZE} already allocated;\s?"
    rf"(?:{_SIZE} current active;\s?)?{_SIZE} free;\s?(?:{_SIZE} allowed;\s?)?"
    rf"{_SIZE} (reserved in total by PyTorch|cached)"
)
#: cudaMallocAsync
_ASYNC = re.compile(
    rf"Currently allocated\s{{0,20}}:\s{{0,5}}{_SIZE}\s{{1,5}}Requested\s{{0,20}}:\s{{0,5}}{_SIZE}"
    rf"\s{{1,5}}Device limit\s{{0,20}}:\s{{0,5}}{_SIZE}\s{{1,5}}"
    rf"Free \(according to CUDA\)\s{{0,5}}:\s{{0,5}}{_SIZE}"
    rf"(?:\s{{1,5}}PyTorch limit \(set by user-supplied memory fraction\)"
    rf"\s{{0,40}}:\s{{0,5}}{_SIZE})?"
)
_ASYNC_DEVICE = re.compile(r"Allocation on device ([0-9]{1,3})")
#: torch.cuda.memory_summary(), which ComfyUI logs
_SUMMARY_DEVICE = re.compile(r"device ID ([0-9]{1,3})")
_SUMMARY_CELL = r"\|\s{0,9}([0-9]{1,12})\s{0,3}(B|[KMG]i?B)\s{0,9}"
_SUMMARY = {
    "allocated": re.compile(rf"\|\s{{0,3}}Allocated memory\s{{0,20}}{_SUMMARY_CELL}"),
    "reserved": re.compile(rf"\|\s{{0,3}}GPU reserved memory\s{{0,20}}{_SUMMARY_CELL}"),
}
#: Device: cuda:0 NVIDIA GeForce RTX 3090 : cudaMallocAsync (ComfyUI says so when it starts)
_COMFY_NAME = re.compile(r"Device: cuda:([0-9]{1,3}) (.{1,60}?) : (?:cudaMallocAsync|native)")
_SIZELESS = re.compile(
    r"CUDA error: out of memory|cuda runtime error \(2\) ?: out of memory|"
    r"Tried to allocate more than 1EB memory|cudaErrorMemoryAllocation|"
    r"(?:CUDA|HIP|XPU) out of memory|Allocation on device\b|torch(?:\.cuda)?\.OutOfMemoryError"
)
_APPLE = re.compile(r"MPS backend out of memory")
_WRAPPED = re.compile(r"\s*\n[\s|>#]*")


@dataclass(frozen=True, slots=True, kw_only=True)
class OomMessage:
    """What torch's allocator said as it gave up; what its form does not tell is None.

    `in_use_bytes` is the process's share as NVML has it, libraries and CUDA context included;
    `others` are the other processes by number. Capacity and free memory are the device's, as CUDA
    tells them. `remarks` say what of the text was taken.
    """

    device: int | None
    allocated_bytes: int
    unallocated_bytes: int | None
    asked_bytes: int | None = None
    capacity_bytes: int | None = None
    free_bytes: int | None = None
    allowed_bytes: int | None = None
    in_use_bytes: int | None = None
    others: tuple[tuple[int, int], ...] | None = None
    gpu_name: str | None = None
    remarks: tuple[str, ...] = ()

    @property
    def reserved_bytes(self) -> int | None:
        """What torch has from the driver, or None where it does not say."""
        if self.unallocated_bytes is None:
            return None
        return self.allocated_bytes + self.unallocated_bytes


def has_oom_message(text: str) -> bool:
    """Return whether torch says in the text that memory is used up, with sizes or without."""
    return bool(_START.search(text) or _SIZELESS.search(text) or _APPLE.search(text))


def read_oom_message(text: str, device: int | None = None) -> OomMessage:
    """Return the last message in the text, or the last about this device.

    Raises MeasurementError for a message without sizes, and where none is about that device.
    """
    starts = [found.start() for found in _START.finditer(text)][:_MOST_MESSAGES]
    ends = [*starts[1:], len(text)][: len(starts)]
    messages: list[OomMessage] = []
    summaries: list[OomMessage] = []
    for start, end in zip(starts, ends, strict=True):
        part = text[start : min(end, start + _LONGEST)]
        if part.startswith("PyTorch"):
            summaries += _summary(part)
        else:
            messages += _read(" ".join(_WRAPPED.sub(" ", part).split()))
    found = messages or summaries
    if not found:
        raise _without_sizes(text)
    wanted = [one for one in found if device is None or one.device in (device, None)]
    if not wanted:
        told = ", ".join(sorted({str(one.device) for one in found}))
        raise MeasurementError(
            f"torch's message is not about GPU {device}", hint=f"it is about GPU {told}"
        )
    last = wanted[-1]
    different = len(dict.fromkeys(wanted))
    remarks = list(last.remarks)
    if different > 1:
        remarks.insert(0, f"the last of {different} messages in the text; the others are not read")
    if len(wanted) < len(found):
        remarks.append(f"messages about other GPUs: {len(found) - len(wanted)}, not read")
    if messages and summaries:
        remarks.append("torch's memory summary in the text is not read")
    return replace(last, remarks=tuple(remarks), gpu_name=_name(text, last.device))


def _name(text: str, device: int | None) -> str | None:
    for found in _COMFY_NAME.finditer(text):
        if device is None or int(found[1]) == device:
            return found[2].strip()
    return None


def _without_sizes(text: str) -> MeasurementError:
    if _APPLE.search(text):
        return MeasurementError(
            "torch's out-of-memory message, of Apple's GPU", hint="compare explains NVIDIA's"
        )
    return MeasurementError(
        "torch's out-of-memory message, but without its sizes",
        hint='paste it whole, from "Tried to allocate" on; nvidia-smi tells who holds the memory',
    )


def _read(part: str) -> list[OomMessage]:
    """Return what one message says, in a list; an empty one where it has no sizes."""
    if found := _OLD.search(part):
        return [_old(part, found)]
    if found := _ASYNC.search(part):
        return [_async(part, found)]
    allocated = _size_in(_ALLOCATED, part)
    capacity = _CAPACITY.search(part)
    if capacity is None:
        return []
    in_use = _size_in(_THIS, part)
    named = _named(part)
    remarks: list[str] = []
    if max([in_use or 0, *(size for _, size in named)]) > _MOST_MEMORY:
        in_use, named = None, []
        remarks.append("the driver does not tell what a process has in use (WSL, Windows)")
    if allocated is None and in_use is None:
        return []
    unallocated = _size_in(_UNALLOCATED, part)
    if pools := _size_in(_POOLS, part):
        remarks.append(f"in private pools (CUDA graphs): {format_size(pools)} of it")
    if allocated is None:  # the message was cut off there
        allocated, unallocated = in_use or 0, None
        remarks.append("what torch has allocated is not in the text: all in use is taken for it")
    elif in_use is None and named:
        in_use, named, said = _own(named, allocated + (unallocated or 0))
        remarks.append(said)
    return [
        OomMessage(
            device=int(capacity[1]),
            allocated_bytes=allocated,
            unallocated_bytes=unallocated,
            asked_bytes=_size_in(_ASKED, part),
            capacity_bytes=_bytes(capacity[2], capacity[3]),
            free_bytes=_bytes(capacity[4], capacity[5]),
            allowed_bytes=_size_in(_ALLOWED, part),
            in_use_bytes=in_use,
            others=tuple(named) if in_use is not None else None,
            remarks=tuple(remarks),
        )
    ]


def _named(part: str) -> list[tuple[int, int]]:
    """Return the processes that a message names by their number, each once."""
    found = {
        int(one[1]): _bytes(one[2], one[3])
        for one in list(_PROCESS.finditer(part))[:_MOST_PROCESSES]
    }
    return list(found.items())


def _own(
    named: list[tuple[int, int]], reserved: int
) -> tuple[int | None, list[tuple[int, int]], str]:
    """Return what the process itself has in use, the others, and what to say of it.

    In a container torch does not know its own number on the host, and names itself like the others.
    """
    able = [one for one in named if one[1] + _ROUNDING >= reserved]
    if len(able) != 1:
        return None, named, "which of the processes that it names is torch's own is not told"
    others = [one for one in named if one is not able[0]]
    said = f"process {able[0][0]} is taken for torch's own: no other has what torch has reserved"
    return able[0][1], others, said


def _old(part: str, found: re.Match[str]) -> OomMessage:
    allocated = _bytes(found[4], found[5])
    last = _bytes(found[12], found[13])
    # "cached" is what is reserved and not allocated: THCCachingAllocator of 1.0 to 1.3
    unallocated = last if found[14] == "cached" else max(last - allocated, 0)
    return OomMessage(
        device=int(found[1]),
        allocated_bytes=allocated,
        unallocated_bytes=unallocated,
        asked_bytes=_size_in(_ASKED, part),
        capacity_bytes=_bytes(found[2], found[3]),
        free_bytes=_bytes(found[8], found[9]),
        allowed_bytes=_bytes(found[10], found[11]) if found[10] else None,
    )


def _async(part: str, found: re.Match[str]) -> OomMessage:
    device = _ASYNC_DEVICE.search(part)
    capacity = _bytes(found[5], found[6])
    limit = _bytes(found[9], found[10]) if found[9] else None
    return OomMessage(
        device=int(device[1]) if device else None,
        allocated_bytes=_bytes(found[1], found[2]),
        unallocated_bytes=None,
        asked_bytes=_bytes(found[3], found[4]),
        capacity_bytes=capacity,
        free_bytes=_bytes(found[7], found[8]),
        # without a limit it prints 2^64 - 1
        allowed_bytes=limit if limit is not None and limit < capacity else None,
    )


def _summary(part: str) -> list[OomMessage]:
    found = {name: pattern.search(part) for name, pattern in _SUMMARY.items()}
    allocated, reserved = found["allocated"], found["reserved"]
    if allocated is None or reserved is None:
        return []
    held = _bytes(allocated[1], allocated[2])
    device = _SUMMARY_DEVICE.search(part)
    return [
        OomMessage(
            device=int(device[1]) if device else None,
            allocated_bytes=held,
            unallocated_bytes=max(_bytes(reserved[1], reserved[2]) - held, 0),
            remarks=("torch's memory summary: it tells nothing of the card",),
        )
    ]


def _size_in(pattern: re.Pattern[str], text: str) -> int | None:
    found = pattern.search(text)
    return _bytes(found[1], found[2]) if found else None


def _bytes(number: str, unit: str) -> int:
    """Return the bytes of a size as torch prints it."""
    unit = "bytes" if unit == "B" else unit
    return round(float(number) * _UNITS[unit])
