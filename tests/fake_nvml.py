"""A `pynvml` without a driver: the real module's codes and errors, functions by scenario.

Errors are NVIDIA's own classes and texts, so what is faked is only what the driver answers.
"""

# ruff: noqa: N802  # the functions have NVML's own names

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
    cores: int | None = 3584
    slice_multiprocessors: int | None = None  # of a MIG instance
    error: int | None = None
    memory_error: int | None = None
    instances: list[FakeGpu | None] = field(default_factory=list)
    #: (pid, bytes or None) of what computes and what draws; a code is what asking gets
    computing: list[tuple[int, int | None]] | int = field(default_factory=list)
    drawing: list[tuple[int, int | None]] | int = field(default_factory=list)


@dataclass
class Scenario:
    """What the driver has to say; `v2_error` is what asking for reserved memory gets."""

    gpus: list[FakeGpu] = field(default_factory=list)
    driver: str = "570.124.04"
    init_error: int | None = None
    v2_error: int | None = None
    names: dict[int, str] = field(default_factory=dict)
    is_open: bool = False


def make_pynvml(scenario: Scenario) -> ModuleType:
    """Return a module that answers as `scenario` says."""
    fake = ModuleType("pynvml")
    known = {name: value for name, value in vars(real).items() if not name.startswith("__")}
    driver = _Driver(scenario)
    answers = {name: getattr(driver, name) for name in dir(_Driver) if name.startswith("nvml")}
    vars(fake).update({**known, **answers})
    return fake


class _Driver:
    """The functions of NVML that vramplan asks, under NVML's own names."""

    def __init__(self, scenario: Scenario) -> None:
        self.scenario = scenario

    def nvmlInit(self) -> None:
        _fail(self.scenario.init_error)
        self.scenario.is_open = True

    def nvmlShutdown(self) -> None:
        self.scenario.is_open = False

    def nvmlSystemGetDriverVersion(self) -> str:
        return self.scenario.driver

    def nvmlDeviceGetCount(self) -> int:
        return len(self.scenario.gpus)

    def nvmlDeviceGetHandleByIndex(self, index: int) -> FakeGpu:
        assert self.scenario.is_open, "asked before nvmlInit or after nvmlShutdown"
        _fail(self.scenario.gpus[index].error)
        return self.scenario.gpus[index]

    def nvmlDeviceGetName(self, gpu: FakeGpu) -> str:
        return gpu.name

    def nvmlDeviceGetUUID(self, gpu: FakeGpu) -> str:
        return gpu.uuid

    def nvmlDeviceGetMemoryInfo(self, gpu: FakeGpu, version: int | None = None) -> SimpleNamespace:
        _fail(gpu.memory_error)
        free = gpu.total - gpu.used - gpu.reserved
        if not version:
            return SimpleNamespace(total=gpu.total, used=gpu.total - free, free=free)
        assert version == real.nvmlMemory_v2
        _fail(self.scenario.v2_error)
        return SimpleNamespace(total=gpu.total, used=gpu.used, free=free, reserved=gpu.reserved)

    def nvmlDeviceGetCudaComputeCapability(self, gpu: FakeGpu) -> tuple[int, int]:
        return gpu.capability

    def nvmlDeviceGetMigMode(self, gpu: FakeGpu) -> tuple[int, int]:
        if not gpu.instances:
            _fail(real.NVML_ERROR_NOT_SUPPORTED)
        return real.NVML_DEVICE_MIG_ENABLE, real.NVML_DEVICE_MIG_ENABLE

    def nvmlDeviceGetMaxMigDeviceCount(self, gpu: FakeGpu) -> int:
        return len(gpu.instances)

    def nvmlDeviceGetMigDeviceHandleByIndex(self, gpu: FakeGpu, place: int) -> FakeGpu:
        found = gpu.instances[place]
        if found is None:
            raise real.NVMLError(real.NVML_ERROR_NOT_FOUND)
        return found

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> FakeGpu:
        assert self.scenario.is_open, "asked before nvmlInit or after nvmlShutdown"
        known = [gpu for whole in self.scenario.gpus for gpu in (whole, *whole.instances) if gpu]
        for gpu in known:
            if gpu.uuid == uuid:
                _fail(gpu.error)
                return gpu
        raise real.NVMLError(real.NVML_ERROR_NOT_FOUND)

    def nvmlDeviceGetComputeRunningProcesses(self, gpu: FakeGpu) -> list[SimpleNamespace]:
        return _listed(gpu.computing)

    def nvmlDeviceGetGraphicsRunningProcesses(self, gpu: FakeGpu) -> list[SimpleNamespace]:
        return _listed(gpu.drawing)

    def nvmlSystemGetProcessName(self, pid: int) -> str:
        if pid not in self.scenario.names:
            raise real.NVMLError(real.NVML_ERROR_NOT_FOUND)
        return self.scenario.names[pid]

    def nvmlDeviceGetMaxClockInfo(self, gpu: FakeGpu, kind: int) -> int:
        assert kind == real.NVML_CLOCK_MEM
        return _told(gpu.memory_clock)

    def nvmlDeviceGetMemoryBusWidth(self, gpu: FakeGpu) -> int:
        return _told(gpu.bus_width)

    def nvmlDeviceGetNumGpuCores(self, gpu: FakeGpu) -> int:
        return _told(gpu.cores)

    def nvmlDeviceGetAttributes(self, gpu: FakeGpu) -> SimpleNamespace:
        return SimpleNamespace(multiprocessorCount=_told(gpu.slice_multiprocessors))


def _listed(processes: list[tuple[int, int | None]] | int) -> list[SimpleNamespace]:
    if isinstance(processes, int):
        raise real.NVMLError(processes)
    return [SimpleNamespace(pid=pid, usedGpuMemory=used) for pid, used in processes]


def _fail(code: int | None) -> None:
    if code is not None:
        raise real.NVMLError(code)


def _told(figure: int | None) -> int:
    if figure is None:
        raise real.NVMLError(real.NVML_ERROR_FUNCTION_NOT_FOUND)
    return figure
