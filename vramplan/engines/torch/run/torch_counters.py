"""torch's own counters of one CUDA device.

Source: torch.cuda.memory_stats, whose keys are ``what.pool.metric``;
https://docs.pytorch.org/docs/stable/generated/torch.cuda.memory_stats.html.
"""

from __future__ import annotations

import time

import torch

from vramplan.measurement.reading import Reading, TorchMemory


class TorchProbe:
    """What this process's torch holds of a device; tensors of other processes are not seen."""

    def __init__(self, device: str) -> None:
        # some of torch's functions take no device without a number: "Expected a torch.device with a
        # specified index" (torch/cuda/_utils.py, _get_device_index)
        self._device = torch.device(torch.device(device).type, torch.device(device).index or 0)

    def read(self) -> Reading:
        """Return the counters, and their peaks since `reset_peaks`."""
        counted = torch.cuda.memory_stats(self._device)

        def of(name: str) -> int:
            return int(counted.get(name, 0))

        return Reading(
            at_s=time.monotonic(),
            torch=TorchMemory(
                allocated_bytes=of("allocated_bytes.all.current"),
                reserved_bytes=of("reserved_bytes.all.current"),
                allocated_peak_bytes=of("allocated_bytes.all.peak"),
                reserved_peak_bytes=of("reserved_bytes.all.peak"),
                requested_peak_bytes=of("requested_bytes.all.peak"),
                inactive_split_bytes=of("inactive_split_bytes.all.current"),
                retries=of("num_alloc_retries"),
            ),
        )

    def reset_peaks(self) -> None:
        """Let peaks begin at what is held now."""
        torch.cuda.reset_peak_memory_stats(self._device)

    def open_context(self) -> None:
        """Create the CUDA context, and leave nothing in the allocator."""
        torch.empty(1, device=self._device)
        torch.cuda.empty_cache()

    def keep_within_free(self) -> int:
        """Keep torch within what the device has free now, and return that, bytes."""
        free, total = torch.cuda.mem_get_info(self._device)
        torch.cuda.set_per_process_memory_fraction(min(1.0, free / total), self._device)
        return int(free)

    def settle(self) -> None:
        """Wait until the device has done all it was asked."""
        torch.cuda.synchronize(self._device)
