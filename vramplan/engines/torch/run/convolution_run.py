"""The workspace of single convolutions: their peak less input, weights and output.

The shapes are those of SD 1.5's and SDXL's UNet and VAE, where workspaces decide the peak.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import torch

from vramplan.engines.torch.run.failure import failure_of
from vramplan.engines.torch.run.meter import Counters
from vramplan.engines.torch.run.torch_run import versions
from vramplan.measurement.run import MeasuredWorkspace
from vramplan.measurement.run_json import encode_part
from vramplan.runner.channel import Channel
from vramplan.runner.task import Task

TARGET = "@convolutions"

#: in channels, out channels, side of the input, side of the filter
SHAPES = (
    (128, 128, 512, 3), (256, 256, 512, 3), (256, 128, 512, 3), (256, 128, 512, 1),
    (512, 512, 256, 3), (512, 256, 256, 3), (512, 512, 128, 3), (512, 512, 64, 3),
    (4, 512, 64, 3), (128, 3, 512, 3), (3, 128, 512, 3), (128, 128, 1024, 3),
    (256, 256, 1024, 3), (320, 320, 64, 3), (640, 640, 32, 3), (1280, 1280, 16, 3),
    (2560, 1280, 16, 3), (320, 320, 128, 3), (128, 256, 256, 3), (4, 320, 64, 3),
)  # fmt: skip
_DRY_SHAPES = ((4, 4, 8, 3),)


@dataclass(frozen=True, slots=True)
class _Case:
    """One convolution."""

    dtype: torch.dtype
    layout: str
    batch: int
    shape: tuple[int, int, int, int]
    benchmark: str


class ConvolutionRun:
    """Runs each convolution twice, and tells what it took each time."""

    def __init__(self, task: Task, channel: Channel, *, counters: Counters | None) -> None:
        self._channel = channel
        self._counters = counters
        self._target = torch.device(task.device)

    def run(self) -> None:
        """Measure; a convolution that fails is told without figures."""
        channel = self._channel
        channel.say("facts", facts={}, versions=versions())
        is_dry = self._target.type == "cpu"
        shapes = _DRY_SHAPES if is_dry else SHAPES
        dtypes = (torch.float16, torch.bfloat16, torch.float32)
        for benchmark, layout, dtype in itertools.product(("off", "on"), ("nchw", "nhwc"), dtypes):
            words = f"{_name(dtype)} {layout} benchmark={benchmark}"
            channel.say("phase", turn="load", phase="convolution", component=words)
            torch.backends.cudnn.benchmark = benchmark == "on"
            for shape, batch in itertools.product(shapes, (1, 2)):
                self._measure(_Case(dtype, layout, batch, shape, benchmark))
        channel.say("done")
        channel.hear()

    def _measure(self, case: _Case) -> None:
        try:
            sizes = self._twice(case)
        except RuntimeError as problem:
            failure = failure_of(problem, "convolution", str(case.shape))
            self._channel.say("note", text=f"{case}: {failure.message}"[:300])
            sizes = (None, None)
        channels, out, side, kernel = case.shape
        workspace = MeasuredWorkspace(
            dtype=_name(case.dtype),
            batch=case.batch,
            in_channels=channels,
            out_channels=out,
            side=side,
            kernel=kernel,
            layout=case.layout,
            benchmark=case.benchmark,
            cold_bytes=sizes[0],
            warm_bytes=sizes[1],
        )
        self._channel.say("workspace", workspace=encode_part(workspace))

    def _twice(self, case: _Case) -> tuple[int | None, int | None]:
        channels, out, side, kernel = case.shape
        filters = torch.zeros(out, channels, kernel, kernel, device=self._target, dtype=case.dtype)
        pixels = torch.zeros(
            case.batch, channels, side, side, device=self._target, dtype=case.dtype
        )
        if case.layout == "nhwc":
            filters = filters.to(memory_format=torch.channels_last)
            pixels = pixels.to(memory_format=torch.channels_last)
        first = self._workspace(pixels, filters, kernel // 2)
        return first, self._workspace(pixels, filters, kernel // 2)

    def _workspace(self, pixels: torch.Tensor, filters: torch.Tensor, padding: int) -> int | None:
        before = self._allocated()
        if self._counters is not None:
            self._counters.reset_peaks()
        with torch.no_grad():
            result = torch.nn.functional.conv2d(pixels, filters, padding=padding)
        if self._counters is None or before is None:
            return None
        self._counters.settle()
        counted = self._counters.read().torch
        if counted is None:
            return None
        held = -(-result.numel() * result.element_size() // 512) * 512
        return counted.allocated_peak_bytes - before - held

    def _allocated(self) -> int | None:
        counted = self._counters.read().torch if self._counters is not None else None
        return counted.allocated_bytes if counted else None


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
