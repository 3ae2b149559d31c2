"""Files of weights that hold none: a safetensors header, and behind it a hole in the file.

A library maps such a file and takes its tensors from the mapping, as it does with real ones; a page
that nobody reads is never there. So loading takes the way that it takes, and no memory.
"""

from __future__ import annotations

import copy
import json
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

#: as https://huggingface.co/docs/safetensors calls them
_NAMES = {
    torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16",
    torch.int64: "I64", torch.int32: "I32", torch.int16: "I16", torch.int8: "I8",
    torch.uint8: "U8", torch.bool: "BOOL", torch.complex64: "C64",
}  # fmt: skip


def write_hollow(path: Path, tensors: Mapping[str, torch.Tensor], dtype: torch.dtype) -> None:
    """Write a file with `tensors` by name, floating-point ones as `dtype`; all of it is zeros.

    Of tensors that share a storage the first is there alone, as libraries save them.
    """
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    seen: set[int] = set()
    at = 0
    for name, tensor in tensors.items():
        if id(tensor) in seen:
            continue
        seen.add(id(tensor))
        kind = dtype if tensor.is_floating_point() else tensor.dtype
        size = tensor.numel() * kind.itemsize
        header[name] = {
            "dtype": _NAMES[kind],
            "shape": list(tensor.shape),
            "data_offsets": [at, at + size],
        }
        at += size
    told = json.dumps(header, separators=(",", ":")).encode()
    told += b" " * (-len(told) % 8)
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(told)) + told)
        file.truncate(8 + len(told) + at)


def tensors_of(cls: Any, config: Any) -> dict[str, torch.Tensor]:
    """Return what a class of diffusers or transformers saves with a config, on `meta`."""
    state = torch.get_rng_state()
    try:
        with torch.device("meta"):
            made = _made(cls, copy.deepcopy(config))
    finally:
        torch.set_rng_state(state)
    found: dict[str, torch.Tensor] = made.state_dict(keep_vars=True)
    return found


def _made(cls: Any, config: Any) -> torch.nn.Module:
    made: torch.nn.Module
    if hasattr(cls, "from_config"):  # diffusers
        made = cls.from_config(config)
    else:
        made = cls(config)
        made.tie_weights()  # type: ignore[operator]  # every model of transformers has it
    return made
