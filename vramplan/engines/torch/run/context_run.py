"""What a process takes beside its tensors: the CUDA context, and what libraries add on first use.

The steps follow one another in one process: the bare context, then cuBLAS, cuBLASLt (a bias is
added in the product), cuDNN and a fused attention kernel.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch

from vramplan.engines.torch.run.failure import failure_of
from vramplan.engines.torch.run.meter import Counters, OwnShare
from vramplan.engines.torch.run.torch_run import versions
from vramplan.measurement.run import ContextStep
from vramplan.measurement.run_json import encode_part
from vramplan.probe.protocol import Probe
from vramplan.runner.channel import Channel
from vramplan.runner.task import Task

TARGET = "@context"


class ContextRun:
    """Takes one step after another and looks at the card after each."""

    def __init__(
        self,
        task: Task,
        channel: Channel,
        *,
        counters: Counters | None,
        device: Probe | None,
        own_share: OwnShare,
    ) -> None:
        self._channel = channel
        self._counters = counters
        self._device = device
        self._own_share = own_share
        self._target = torch.device(task.device)

    def run(self) -> None:
        """Take the steps; a failure is told like any other result."""
        channel = self._channel
        channel.say("facts", facts={}, versions=versions())
        name = "context"
        try:
            for name, step in self._steps():
                channel.say("phase", turn="load", phase="context", component=name)
                step()
                self._tell(name)
        except Exception as problem:  # noqa: BLE001  # whatever stops the run is its result
            channel.say("failure", failure=encode_part(failure_of(problem, "context", name)))
        channel.say("done")
        channel.hear()

    def _tell(self, name: str) -> None:
        if self._counters is not None:
            self._counters.settle()
        memory = self._device.read().device if self._device is not None else None
        held = self._counters.read().torch if self._counters is not None else None
        if memory is None:
            return
        step = ContextStep(
            name=name,
            process_used_bytes=self._own_share(memory),
            device_used_bytes=memory.used_bytes,
            reserved_bytes=held.reserved_bytes if held else 0,
        )
        self._channel.say("context", step=encode_part(step))
        self._channel.tell_end("load", "context", name)

    def _steps(self) -> Iterator[tuple[str, Callable[[], object]]]:
        dtype = torch.float16 if self._target.type == "cuda" else torch.float32
        side = 1024 if self._target.type == "cuda" else 16
        yield "context", self._open
        matrix = torch.zeros(side, side, device=self._target, dtype=dtype)
        yield "cuBLAS", lambda: matrix @ matrix
        linear = torch.nn.functional.linear
        yield "cuBLASLt", lambda: linear(matrix, matrix, matrix[0])
        filters = torch.zeros(64, 64, 3, 3, device=self._target, dtype=dtype)
        pixels = torch.zeros(1, 64, 64, 64, device=self._target, dtype=dtype)
        yield "cuDNN", lambda: torch.nn.functional.conv2d(pixels, filters, padding=1)
        heads = torch.zeros(1, 8, 256, 64, device=self._target, dtype=dtype)
        attention = torch.nn.functional.scaled_dot_product_attention
        yield "attention", lambda: attention(heads, heads, heads)

    def _open(self) -> None:
        if self._counters is not None:
            self._counters.open_context()
