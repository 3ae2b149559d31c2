"""The eyes on a GPU while something runs on it: samples of NVML, and nvidia-smi."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from vramplan.measurement.run import MeasuredGpu

if TYPE_CHECKING:
    from vramplan.probe.nvml import Gpu, NvmlProbe
    from vramplan.probe.sampler import Sampler
    from vramplan.runner.phase_ends import SmiEyes

#: between two samples of NVML; a reading takes some 0.1 ms
PERIOD_S = 0.005


@dataclass(frozen=True, kw_only=True)
class Eyes:
    """How one GPU is looked at.

    `watch` samples it from another thread, `smi` is nvidia-smi's own report, and `smi_eyes` its
    figures at the ends of phases.
    """

    probe: NvmlProbe
    watch: Callable[[], Sampler]
    smi: Callable[[], str | None]
    smi_eyes: SmiEyes


def open_eyes(gpu: Gpu, probe: NvmlProbe) -> Eyes:
    """Return the eyes on `gpu`, which `probe` looks at."""
    from vramplan.probe.sampler import Sampler
    from vramplan.probe.smi import read_smi
    from vramplan.probe.smi_probe import SmiProbe

    def look() -> tuple[int, int | None]:
        return probe.read_memory().used_bytes, None  # asking for processes takes too long

    return Eyes(
        probe=probe,
        watch=lambda: Sampler(look, PERIOD_S),
        smi=lambda: read_smi(gpu.uuid),
        smi_eyes=SmiProbe(gpu.uuid),
    )


def measured_gpu(gpu: Gpu, driver: str) -> MeasuredGpu:
    """Return a GPU as a run names it."""
    return MeasuredGpu(
        name=gpu.name,
        compute_capability=gpu.compute_capability,
        total_bytes=gpu.total_bytes,
        reserved_bytes=gpu.reserved_bytes,
        driver=driver,
    )
