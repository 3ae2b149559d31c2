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


#: of one file at most, as libraries save them; a system maps none that is larger than its memory
_LARGEST_FILE = 5_000_000_000


def write_hollow(
    folder: Path, name: str, tensors: Mapping[str, torch.Tensor], dtype: torch.dtype
) -> None:
    """Write `name`.safetensors with `tensors`, floating-point ones as `dtype`; all of it is zeros.

    Where it would be large it is several files and their index. Of tensors that share a storage the
    first is there alone, as libraries save them.
    """
    files: list[dict[str, Any]] = [{}]
    size = 0
    seen: set[int] = set()
    for key, tensor in tensors.items():
        if id(tensor) in seen:
            continue
        seen.add(id(tensor))
        kind = dtype if tensor.is_floating_point() else tensor.dtype
        taken = tensor.numel() * kind.itemsize
        if files[-1] and size + taken > _LARGEST_FILE:
            files.append({})
            size = 0
        offsets = [size, size + taken]
        files[-1][key] = {
            "dtype": _NAMES[kind], "shape": list(tensor.shape), "data_offsets": offsets,
        }  # fmt: skip
        size += taken
    if len(files) == 1:
        _write_file(folder / f"{name}.safetensors", files[0])
        return
    places: dict[str, str] = {}
    for number, header in enumerate(files, 1):
        file = f"{name}-{number:05}-of-{len(files):05}.safetensors"
        _write_file(folder / file, header)
        places |= dict.fromkeys(header, file)
    index = {"metadata": {}, "weight_map": places}
    (folder / f"{name}.safetensors.index.json").write_text(json.dumps(index))


def _write_file(path: Path, header: Mapping[str, Any]) -> None:
    told = json.dumps({"__metadata__": {"format": "pt"}, **header}, separators=(",", ":")).encode()
    told += b" " * (-len(told) % 8)
    end = max((one["data_offsets"][1] for one in header.values()), default=0)
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(told)) + told)
        file.truncate(8 + len(told) + end)


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
