"""A `pynvml` without a driver: the real module's codes and errors, functions by scenario.

Errors are NVIDIA's own classes and texts, so what is faked is only what the driver answers.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from types import ModuleType, SimpleNamespace

import pynvml as real

MIB = 1 << 20


@dataclass
class FakeGpu:
    """A GPU's answers; a code in `error` is what every question about it gets."""

    name: str = "NVIDIA GeForce RTX 3060"
    uuid: str = "GPU-0"
    total: int = 12288 * MIB
    used: int = 900 * MIB
    reserved: int = 368 * MIB
    capability: tuple[int, int] = (8, 6)
    memory_clock: int | None = 7501
    bus_width: int | None = 192
    error: int | None = None
    memory_error: int | None = None
    instances: list[FakeGpu | None] = field(default_factory=list)


@dataclass
class Scenario:
    """What the driver has to say; `v2_error` is what asking for reserved memory gets."""

    gpus: list[FakeGpu] = field(default_factory=list)
    driver: str = "570.124.04"
    init_error: int | None = None
    v2_error: int | None = None
    is_open: bool = False


def make_pynvml(scenario: Scenario) -> ModuleType:
    """Return a module that answers as `scenario` says."""
    fake = ModuleType("pynvml")
    fake.__dict__.update(
        {name: value for name, value in vars(real).items() if not name.startswith("__")}
    )

    def fail(code: int | None) -> None:
        if code is not None:
            raise real.NVMLError(code)

    def init() -> None:
        fail(scenario.init_error)
        scenario.is_open = True

    def shutdown() -> None:
        scenario.is_open = False

    def handle(index: int) -> FakeGpu:
        assert scenario.is_open, "asked before nvmlInit or after nvmlShutdown"
        fail(scenario.gpus[index].error)
        return scenario.gpus[index]

    def memory(gpu: FakeGpu, version: int | None = None) -> SimpleNamespace:
        fail(gpu.memory_error)
        if version:
            fail(scenario.v2_error)
            free = gpu.total - gpu.used - gpu.reserved
            return SimpleNamespace(
                total=gpu.total, used=gpu.used, free=free, reserved=gpu.reserved
            )
        used = gpu.used + gpu.reserved
        return SimpleNamespace(total=gpu.total, used=used, free=gpu.total - used)

    def mig_mode(gpu: FakeGpu) -> tuple[int, int]:
        if not gpu.instances:
            fail(real.NVML_ERROR_NOT_SUPPORTED)
        return real.NVML_DEVICE_MIG_ENABLE, real.NVML_DEVICE_MIG_ENABLE

    def instance(gpu: FakeGpu, place: int) -> FakeGpu:
        found = gpu.instances[place]
        if found is None:
            raise real.NVMLError(real.NVML_ERROR_NOT_FOUND)
        return found

    def known(figure: int | None) -> int:
        if figure is None:
            raise real.NVMLError(real.NVML_ERROR_FUNCTION_NOT_FOUND)
        return figure

    fake.nvmlInit = init
    fake.nvmlShutdown = shutdown
    fake.nvmlSystemGetDriverVersion = lambda: scenario.driver
    fake.nvmlDeviceGetCount = lambda: len(scenario.gpus)
    fake.nvmlDeviceGetHandleByIndex = handle
    fake.nvmlDeviceGetName = lambda gpu: gpu.name
    fake.nvmlDeviceGetUUID = lambda gpu: gpu.uuid
    fake.nvmlDeviceGetMemoryInfo = memory
    fake.nvmlDeviceGetCudaComputeCapability = lambda gpu: gpu.capability
    fake.nvmlDeviceGetMigMode = mig_mode
    fake.nvmlDeviceGetMaxMigDeviceCount = lambda gpu: len(gpu.instances)
    fake.nvmlDeviceGetMigDeviceHandleByIndex = instance
    fake.nvmlDeviceGetMaxClockInfo = lambda gpu, _kind: known(gpu.memory_clock)
    fake.nvmlDeviceGetMemoryBusWidth = lambda gpu: known(gpu.bus_width)
    return fake
