"""This machine's GPUs as NVML, the driver's own library, reports them.

The only module that imports `pynvml` (the distribution is NVIDIA's ``nvidia-ml-py``), and it does
so when asked: most machines that plan have no GPU. NVML counts the whole card, whatever
CUDA_VISIBLE_DEVICES says. Source of every call: NVML API Reference Guide,
https://docs.nvidia.com/deploy/nvml-api.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from types import ModuleType

from vramplan.errors import MissingError

#: pynvml has no types: a device's handle is a pointer that only its functions read
Handle = object


@dataclass(frozen=True, slots=True, kw_only=True)
class Gpu:
    """One GPU, or one MIG instance of it, as the driver sees it now.

    `reserved_bytes` is what the system keeps; drivers before 510 do not tell it (None) and count it
    in `used_bytes`. `bandwidth_bytes_per_s` is 0 where the driver does not tell.
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
    pynvml = _import_pynvml()
    with _session(pynvml):
        gpus: list[Gpu] = []
        problems: list[str] = []
        for index in range(pynvml.nvmlDeviceGetCount()):
            try:
                gpus += _read_gpu(pynvml, index)
            except pynvml.NVMLError as problem:
                message, _ = _explain(pynvml, problem)
                problems.append(f"GPU {index}: {message}")
        driver = pynvml.nvmlSystemGetDriverVersion()
    if not gpus:
        reason = "; ".join(problems) or "the NVIDIA driver reports no GPU"
        raise MissingError(reason, hint="nvidia-smi shows what the driver sees")
    return Inventory(driver_version=driver, gpus=tuple(gpus), problems=tuple(problems))


def _import_pynvml() -> ModuleType:
    try:
        import pynvml
    except ImportError:
        hint = "pip install nvidia-ml-py"
        raise MissingError("reading GPUs needs nvidia-ml-py", hint=hint) from None
    module: ModuleType = pynvml
    return module


@contextmanager
def _session(pynvml: ModuleType) -> Iterator[None]:
    """Open NVML and close it again; its errors outside of a single GPU become MissingError."""
    try:
        pynvml.nvmlInit()
        try:
            yield
        finally:
            with suppress(pynvml.NVMLError):
                pynvml.nvmlShutdown()
    except pynvml.NVMLError as problem:
        message, hint = _explain(pynvml, problem)
        raise MissingError(message, hint=hint) from None


def _read_gpu(pynvml: ModuleType, index: int) -> Iterator[Gpu]:
    """Yield the GPU at `index`, or its MIG instances: work runs on those and not on the whole."""
    whole = pynvml.nvmlDeviceGetHandleByIndex(index)
    for handle in _instances(pynvml, whole) or [whole]:
        total, used, free, reserved = _memory(pynvml, handle)
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


def _memory(pynvml: ModuleType, handle: Handle) -> tuple[int, int, int, int | None]:
    """Return total, used, free and reserved bytes; reserved only where the driver has version 2.

    Older drivers answer version 2 with "function not found", WSL's with "unknown error"; what is
    wrong with the GPU itself is wrong with version 1 too. Source: nvitop#30.
    """
    try:
        memory = pynvml.nvmlDeviceGetMemoryInfo(handle, version=pynvml.nvmlMemory_v2)
    except pynvml.NVMLError:
        memory = pynvml.nvmlDeviceGetMemoryInfo(handle)
        return int(memory.total), int(memory.used), int(memory.free), None
    return int(memory.total), int(memory.used), int(memory.free), int(memory.reserved)


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


def _explain(pynvml: ModuleType, problem: Exception) -> tuple[str, str]:
    """Return an NVML error in words, and what to do about it."""
    known = {
        pynvml.NVML_ERROR_LIBRARY_NOT_FOUND: (
            "no NVIDIA driver on this machine (its library NVML was not found)",
            "install the driver, or name a card: --card 8gb",
        ),
        pynvml.NVML_ERROR_DRIVER_NOT_LOADED: (
            "the NVIDIA driver is not loaded",
            "see what nvidia-smi says, or name a card: --card 8gb",
        ),
        pynvml.NVML_ERROR_NO_PERMISSION: (
            "no permission to ask the NVIDIA driver",
            "the user needs access to /dev/nvidiactl and /dev/nvidia0",
        ),
        pynvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH: (
            "the NVIDIA driver and its library NVML are of different versions",
            "restart the machine: this is how an update of the driver ends",
        ),
        pynvml.NVML_ERROR_GPU_IS_LOST: (
            "the GPU is lost (it fell off the bus or is otherwise out of reach)",
            "restart the machine",
        ),
        pynvml.NVML_ERROR_NOT_SUPPORTED: (
            "the driver does not tell how much memory it has",
            "name a card or a size: --card 8gb",
        ),
    }
    code = getattr(problem, "value", None)
    return known.get(code, (f"NVML: {problem}", "see what nvidia-smi says"))
