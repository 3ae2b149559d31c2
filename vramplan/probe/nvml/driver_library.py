"""NVML itself: imported when it is asked for, opened and closed, its errors in words.

`pynvml` comes from NVIDIA's ``nvidia-ml-py``; most machines that plan have no GPU. NVML counts the
whole card, whatever CUDA_VISIBLE_DEVICES says. Source of every call: NVML API Reference Guide,
https://docs.nvidia.com/deploy/nvml-api.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import ModuleType

from vramplan.errors import MissingError

#: pynvml has no types: a device's handle is a pointer that only its functions read
Handle = object


def import_pynvml() -> ModuleType:
    """Return the library, or raise MissingError where it is not installed."""
    try:
        import pynvml
    except ImportError:
        hint = "pip install nvidia-ml-py"
        raise MissingError("reading GPUs needs nvidia-ml-py", hint=hint) from None
    module: ModuleType = pynvml
    return module


@contextmanager
def session(pynvml: ModuleType) -> Iterator[None]:
    """Open NVML and close it again; its errors outside of a single GPU become MissingError."""
    try:
        pynvml.nvmlInit()
        try:
            yield
        finally:
            with suppress(pynvml.NVMLError):
                pynvml.nvmlShutdown()
    except pynvml.NVMLError as problem:
        message, hint = explain(pynvml, problem)
        raise MissingError(message, hint=hint) from None


def read_memory(pynvml: ModuleType, handle: Handle) -> tuple[int, int, int, int | None]:
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


def explain(pynvml: ModuleType, problem: Exception) -> tuple[str, str]:
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
