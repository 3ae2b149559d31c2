"""This machine's GPUs, as the driver sees them now."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from types import ModuleType

from vramplan.catalog.multiprocessors import multiprocessors_of
from vramplan.errors import MissingError
from vramplan.probe.nvml.driver_library import Handle, explain, import_pynvml, read_memory, session
from vramplan.quick_dataclass import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Gpu:
    """One GPU, or one MIG instance of it, as the driver sees it now.

    `reserved_bytes` is what the system keeps; drivers before 510 do not tell it (None) and count it
    in `used_bytes`. `bandwidth_bytes_per_s` is 0 and `multiprocessors` None where the driver does
    not tell.
    """

    index: int
    name: str
    uuid: str
    total_bytes: int
    used_bytes: int
    free_bytes: int
    reserved_bytes: int | None
    compute_capability: str
    bandwidth_bytes_per_s: int
    multiprocessors: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Inventory:
    """What the driver answered: its version, the GPUs, and why it cannot read other GPUs."""

    driver_version: str
    gpus: tuple[Gpu, ...]
    problems: tuple[str, ...] = ()


def read_inventory() -> Inventory:
    """Return this machine's GPUs.

    Raises MissingError where there is no library, driver, permission or GPU that can be read.
    """
    pynvml = import_pynvml()
    with session(pynvml):
        gpus: list[Gpu] = []
        problems: list[str] = []
        for index in range(pynvml.nvmlDeviceGetCount()):
            try:
                gpus += _read_gpu(pynvml, index)
            except pynvml.NVMLError as problem:
                message, _ = explain(pynvml, problem)
                problems.append(f"GPU {index}: {message}")
        driver = pynvml.nvmlSystemGetDriverVersion()
    if not gpus:
        reason = "; ".join(problems) or "the NVIDIA driver reports no GPU"
        raise MissingError(reason, hint="nvidia-smi shows what the driver sees")
    return Inventory(driver_version=driver, gpus=tuple(gpus), problems=tuple(problems))


def _read_gpu(pynvml: ModuleType, index: int) -> Iterator[Gpu]:
    """Yield the GPU at `index`, or its MIG instances: work runs on those and not on the whole."""
    whole = pynvml.nvmlDeviceGetHandleByIndex(index)
    for handle in _instances(pynvml, whole) or [whole]:
        total, used, free, reserved = read_memory(pynvml, handle)
        major, minor = pynvml.nvmlDeviceGetCudaComputeCapability(whole)
        yield Gpu(
            index=index,
            name=pynvml.nvmlDeviceGetName(handle),
            uuid=pynvml.nvmlDeviceGetUUID(handle),
            total_bytes=total,
            used_bytes=used,
            free_bytes=free,
            reserved_bytes=reserved,
            compute_capability=f"{major}.{minor}",
            bandwidth_bytes_per_s=_bandwidth(pynvml, whole),
            multiprocessors=_multiprocessors(pynvml, whole, handle, f"{major}.{minor}"),
        )


def _instances(pynvml: ModuleType, whole: Handle) -> list[Handle]:
    """Return the MIG instances of a GPU; none where MIG is off or unknown to card or driver."""
    try:
        mode, _ = pynvml.nvmlDeviceGetMigMode(whole)
        if mode != pynvml.NVML_DEVICE_MIG_ENABLE:
            return []
        places = range(pynvml.nvmlDeviceGetMaxMigDeviceCount(whole))
    except pynvml.NVMLError:
        return []
    found = []
    for place in places:
        with suppress(pynvml.NVMLError):  # an empty place answers "not found"
            found.append(pynvml.nvmlDeviceGetMigDeviceHandleByIndex(whole, place))
    return found


def _multiprocessors(
    pynvml: ModuleType, whole: Handle, handle: Handle, compute_capability: str
) -> int | None:
    """Return a MIG instance's multiprocessors, or those that a GPU's cores are."""
    try:
        if handle is not whole:
            return int(pynvml.nvmlDeviceGetAttributes(handle).multiprocessorCount)
        cores = int(pynvml.nvmlDeviceGetNumGpuCores(whole))
    except pynvml.NVMLError:
        return None
    return multiprocessors_of(cores, compute_capability)


def _bandwidth(pynvml: ModuleType, handle: Handle) -> int:
    """Return the memory's peak rate: two transfers a clock over the bus's width in bits.

    Source: the peak rate that CUDA's deviceQuery prints, 2 x clock x width / 8.
    """
    try:
        megahertz = int(pynvml.nvmlDeviceGetMaxClockInfo(handle, pynvml.NVML_CLOCK_MEM))
        bits = int(pynvml.nvmlDeviceGetMemoryBusWidth(handle))
    except pynvml.NVMLError:
        return 0
    return 2 * megahertz * 10**6 * bits // 8
