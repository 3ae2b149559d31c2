"""Meets files of weights whose header is here, under ``--weights none``.

Of a safetensors file the header alone says which tensors it has. A file that ends before they do,
such as one that was fetched in part, and one that is large, is opened as a hollow one: the same
header, and behind it a hole (`hollow_weights`).
"""

from __future__ import annotations

import functools
import json
import os
import struct
from collections.abc import Callable
from pathlib import Path
from tempfile import mkstemp
from types import ModuleType
from typing import Any

from vramplan.engines.torch.witness.config_folders import is_ours, remark, run_folder

#: of files above it nothing is read but the header
_LARGE = 256 << 20
#: as safetensors itself bounds it
_LONGEST_HEADER = 100_000_000
_DAMAGED = (OSError, ValueError, AttributeError, TypeError, LookupError, struct.error,
            RecursionError)  # fmt: skip


def meet(module: ModuleType) -> None:
    """Have safetensors open hollow files in place of such."""
    named: Any = module
    named.safe_open = _met(named.safe_open)


def _met(original: Callable[..., Any]) -> Any:
    @functools.wraps(original, updated=())
    def safe_open(filename: Any, *words: Any, **given: Any) -> Any:
        return original(hollow_of(os.fspath(filename)), *words, **given)

    return safe_open


def hollow_of(name: str) -> str:
    """Return the path of a file to open in place of one: the same, or a hollow one."""
    path = Path(name)
    try:
        about = path.stat()
    except OSError:
        return name  # safetensors says what is wrong with it
    if is_ours(str(path.resolve())):
        return name
    return _hollow(name, about.st_size, about.st_mtime_ns)


@functools.lru_cache(maxsize=1024)
def _hollow(name: str, size: int, _changed: int) -> str:
    header = _header(name)
    if header is None:
        return name
    told, end = header
    if size >= end and size < _LARGE:
        return name
    if size < end:
        remark(f"{name}: it ends before its tensors do; their names and sizes are taken from it")
    number, made = mkstemp(prefix="hollow-", suffix=".safetensors", dir=run_folder())
    with os.fdopen(number, "wb") as file:
        file.write(struct.pack("<Q", len(told)) + told)
        file.truncate(end)
    return made


def _header(name: str) -> tuple[bytes, int] | None:
    """Return a file's header and where its tensors end; None for what is no such file."""
    try:
        with Path(name).open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            if not 2 <= length <= _LONGEST_HEADER:
                return None
            told = file.read(length)
        if len(told) != length:
            return None
        tensors = [one for key, one in json.loads(told).items() if key != "__metadata__"]
        end = max((int(one["data_offsets"][1]) for one in tensors), default=0)
    except _DAMAGED:
        return None
    return (told, 8 + length + end) if 0 <= end < 1 << 50 else None
