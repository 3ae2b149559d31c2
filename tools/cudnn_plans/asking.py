"""Asks torch, on a card that is not there, which workspaces a convolution is tried with.

It is run by `tools.cudnn_plans` in a process of its own: a case a line comes in, an answer a line
goes out. The card is full but for the result, so that torch is refused every plan's workspace in
turn, and its own allocator's history says how much each would have been.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import Any

import torch

from vramplan.engines.torch.tape.convolution import (
    FILTER_GRADIENT,
    FORWARD,
    INPUT_GRADIENT,
    Convolution,
    read_kind,
)

DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
Value = Any

#: the largest request of torch's small pool
_SMALL = 1 << 20


class NotPlannedError(Exception):
    """A convolution is worked out by other means than cuDNN's plans."""


def plans_of(kind: str, batch: int, sides: Sequence[int], dtype: str) -> list[int]:
    """Return the workspaces that are tried in turn, in bytes as the allocator rounds them.

    The last is 0 where a plan needs none; where none is left after the last, torch gives up.
    """
    layer = read_kind(kind)
    if layer is None:
        raise ValueError(kind)
    options: Value = {"dtype": DTYPES[dtype], "device": "cuda"}
    if layer.is_channels_last:
        options["memory_format"] = (
            torch.channels_last if len(layer.kernel) == 2 else torch.channels_last_3d
        )
    rows, columns = layer.in_channels // layer.groups, layer.out_channels
    shape = (layer.in_channels, layer.out_channels // layer.groups) if layer.is_transposed else (
        columns, rows,
    )  # fmt: skip
    torch.cuda.set_per_process_memory_fraction(1.0)
    weight = torch.empty(*shape, *layer.kernel, **options)
    source = torch.empty(batch, layer.in_channels, *sides, **options)
    target = torch.empty(batch, layer.out_channels, *layer.output_sides(sides), **options)
    if layer.product == FORWARD:
        del target
        result = torch.empty(batch, layer.out_channels, *layer.output_sides(sides), **options)
    else:
        result = torch.empty_like(source if layer.product == INPUT_GRADIENT else weight)
    plugs = _plug()
    held = torch.cuda.memory_reserved()
    size = result.numel() * result.element_size()
    del result
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction((held + (1 << 20)) / total)
    memory: Value = torch.cuda.memory
    memory._record_memory_history("all", context=None, stacks="python")  # noqa: SLF001  # its name
    is_refused = False
    try:
        _run(layer, source, weight, None if layer.product == FORWARD else target)
    except torch.OutOfMemoryError:
        is_refused = True
    except RuntimeError as problem:
        if "engine" not in str(problem):
            raise
        is_refused = True
    events = memory._snapshot()["device_traces"][0]  # noqa: SLF001  # as above
    memory._record_memory_history(None)  # noqa: SLF001  # as above
    del plugs
    refused = [one["size"] for one in events if one["action"] == "oom"]
    served = [one["size"] for one in events if one["action"] == "alloc"]
    if size not in served:  # torch copies an operand first: cuDNN is not asked (bf16 on 7.5)
        raise NotPlannedError
    served.remove(size)
    if served:
        raise ValueError(f"{kind} at {batch}x{sides} {dtype}: {served} fits beside a full card")
    return refused if is_refused else [*refused, 0]


def _plug() -> list[torch.Tensor]:
    """Take every free block, so that nothing but what is let go of now can be had.

    What is left of the large pool's blocks in pieces of up to 1 MiB, nobody is given.
    """
    taken: list[torch.Tensor] = []
    while True:
        free = [
            min(block["size"], _SMALL) if segment["segment_type"] == "small" else block["size"]
            for segment in torch.cuda.memory_snapshot()
            for block in segment["blocks"]
            if block["state"] == "inactive"
            and (segment["segment_type"] == "small" or block["size"] > _SMALL)
        ]
        if not free:
            return taken
        taken += [torch.empty(size, dtype=torch.uint8, device="cuda") for size in sorted(free)]


def _run(
    layer: Convolution, source: torch.Tensor, weight: torch.Tensor, target: torch.Tensor | None
) -> Value:
    shape = (
        layer.stride,
        layer.padding,
        layer.dilation,
        layer.is_transposed,
        (0,) * len(layer.kernel),
        layer.groups,
    )
    if target is None:
        return torch.ops.aten.convolution(source, weight, None, *shape)
    mask = [layer.product == INPUT_GRADIENT, layer.product == FILTER_GRADIENT, False]
    return torch.ops.aten.convolution_backward(target, source, weight, None, *shape, mask)


def main() -> None:
    """Answer case after case."""
    small = torch.empty(16, 16, device="cuda")
    _ = small @ small  # cuBLAS has its workspace before anything is counted
    print(json.dumps({"torch": torch.__version__, "cudnn": torch.backends.cudnn.version()}))
    sys.stdout.flush()
    for line in sys.stdin:
        kind, batch, sides, dtype = json.loads(line)
        try:
            with torch.no_grad():
                plans = plans_of(kind, batch, sides, dtype)
        except (torch.OutOfMemoryError, NotPlannedError):  # or its operands alone are too much
            plans = None
        print(json.dumps(plans), flush=True)
        torch.cuda.empty_cache()


if __name__ == "__main__":
    main()
