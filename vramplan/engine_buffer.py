"""A buffer as a ggml engine prints it, and what that is in a budget's own words.

Sources for the names: llama.cpp, src/llama-model.cpp, llama-kv-cache.cpp, llama-context.cpp and
llama-memory-recurrent.cpp (``CUDA0 model buffer size = …``). A projector's are named by our reader
of logs: clip.cpp prints them as plain buffers.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from vramplan.model import HOST, LANGUAGE_MODEL, PROJECTOR, Buffer, Device, LineKind
from vramplan.quick_dataclass import dataclass

#: what engines call a buffer -> what it is for, and whose it is; anything else (output, input) is
#: no line of a budget
ENGINE_NAMES: Mapping[str, tuple[LineKind, str]] = {
    "model": (LineKind.WEIGHTS, LANGUAGE_MODEL),
    "KV": (LineKind.KV_CACHE, LANGUAGE_MODEL),
    "RS": (LineKind.RECURRENT_STATE, LANGUAGE_MODEL),
    "compute": (LineKind.COMPUTE_BUFFER, LANGUAGE_MODEL),
    "projector": (LineKind.WEIGHTS, PROJECTOR),
    "projector compute": (LineKind.PROJECTOR_COMPUTE, PROJECTOR),
}
_NUMBER = re.compile(r"[0-9]{1,3}$")


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineBuffer:
    """A buffer that a ggml engine said it allocated, such as CUDA0, KV."""

    device: str
    name: str
    size_bytes: int

    @property
    def place(self) -> Device:
        """Return where it is: CPU, CPU_Mapped and CUDA_Host are system memory, CUDA1 is GPU 1."""
        if self.device.startswith("CPU") or "Host" in self.device:
            return HOST
        number = _NUMBER.search(self.device)
        return Device(gpu=int(number[0]) if number else 0)

    def in_our_words(self) -> Buffer | None:
        """Return what it is of a budget, or None for what no budget has."""
        meaning = ENGINE_NAMES.get(self.name)
        if meaning is None:
            return None
        kind, component = meaning
        return Buffer(kind=kind, device=self.place, size_bytes=self.size_bytes, component=component)


def in_our_words(printed: Iterable[EngineBuffer]) -> tuple[Buffer, ...]:
    """Return the buffers that a budget has lines for."""
    return tuple(found for one in printed if (found := one.in_our_words()) is not None)


def engine_name(kind: LineKind, component: str = LANGUAGE_MODEL) -> str:
    """Return what engines call a buffer. Raises KeyError for what they print no buffer of."""
    for name, meaning in ENGINE_NAMES.items():
        if meaning == (kind, component):
            return name
    raise KeyError(kind, component)
