"""One GPU held open, to be looked at again and again."""

from __future__ import annotations

import time
from contextlib import ExitStack
from pathlib import Path
from types import ModuleType, TracebackType
from typing import Self

from vramplan.errors import MeasurementError, MissingError
from vramplan.measurement.reading import DeviceMemory, ProcessMemory, Reading
from vramplan.probe.nvml.driver_library import Handle, explain, import_pynvml, read_memory, session


class NvmlProbe:
    """Eyes on the GPU, or MIG instance, with this UUID; a context manager.

    Reading takes no device memory: NVML needs no CUDA context. Entering raises MissingError where
    there is no such GPU.
    """

    def __init__(self, uuid: str) -> None:
        self._uuid = uuid
        self._stack = ExitStack()
        self._pynvml: ModuleType
        self._handle: Handle = None

    def __enter__(self) -> Self:
        self._pynvml = import_pynvml()
        self._stack.enter_context(session(self._pynvml))
        try:
            self._handle = self._pynvml.nvmlDeviceGetHandleByUUID(self._uuid)
        except self._pynvml.NVMLError as problem:
            self._stack.close()
            message, hint = explain(self._pynvml, problem)
            raise MissingError(f"GPU {self._uuid}: {message}", hint=hint) from None
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        problem: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stack.close()

    def read(self) -> Reading:
        """Return the card's memory and who holds it.

        Raises MeasurementError where the driver does not answer any more: a lost GPU.
        """
        memory = self.read_memory()
        processes = self._processes()
        return Reading(
            at_s=time.monotonic(),
            device=DeviceMemory(
                total_bytes=memory.total_bytes,
                used_bytes=memory.used_bytes,
                free_bytes=memory.free_bytes,
                reserved_bytes=memory.reserved_bytes,
                used_with_reserve_bytes=self._used_with_reserve(),
                processes=processes,
            ),
        )

    def read_memory(self) -> DeviceMemory:
        """Return the card's memory alone: a fraction of what asking for processes takes."""
        pynvml = self._pynvml
        try:
            total, used, free, reserved = read_memory(pynvml, self._handle)
        except pynvml.NVMLError as problem:
            message, _ = explain(pynvml, problem)
            raise MeasurementError(f"GPU {self._uuid}: {message}") from None
        return DeviceMemory(
            total_bytes=total, used_bytes=used, free_bytes=free, reserved_bytes=reserved
        )

    def _used_with_reserve(self) -> int | None:
        """Return version 1 of what is used, which has the system's share inside."""
        try:
            return int(self._pynvml.nvmlDeviceGetMemoryInfo(self._handle).used)
        except self._pynvml.NVMLError:
            return None

    def _processes(self) -> tuple[ProcessMemory, ...] | None:
        """Return who uses the GPU, or None where the driver does not say (WSL, some containers).

        A process that both computes and draws is listed twice by the driver, with one size.
        """
        pynvml = self._pynvml
        found: dict[int, ProcessMemory] = {}
        asked = (
            ("C", pynvml.nvmlDeviceGetComputeRunningProcesses),
            ("G", pynvml.nvmlDeviceGetGraphicsRunningProcesses),
        )
        failures = 0
        for kind, ask in asked:
            try:
                listed = ask(self._handle)
            except pynvml.NVMLError:
                failures += 1
                continue
            for one in listed:
                known = found.get(one.pid)
                used = one.usedGpuMemory
                found[one.pid] = ProcessMemory(
                    pid=int(one.pid),
                    name=known.name if known else _name(pynvml, one.pid),
                    used_bytes=None if used is None else int(used),
                    kind=f"{known.kind}+{kind}" if known else kind,
                )
        if failures == len(asked):
            return None
        return tuple(found.values())


def _name(pynvml: ModuleType, pid: int) -> str:
    """Return a process's name, from the driver or from the kernel; its number where none tells."""
    try:
        name = pynvml.nvmlSystemGetProcessName(pid)
        return name.decode(errors="replace") if isinstance(name, bytes) else str(name)
    except (pynvml.NVMLError, UnicodeDecodeError):
        pass
    try:
        return Path(f"/proc/{int(pid)}/comm").read_text(errors="replace").strip()
    except OSError:
        return f"process {pid}"
