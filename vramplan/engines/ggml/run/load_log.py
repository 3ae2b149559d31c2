"""What llama.cpp prints while it loads: its buffers, the settings it ran with, and how it failed.

llama-server prints it to stderr, Ollama into its server's log. Lines of early 2024
(``llm_load_tensors: CUDA0 buffer size``) and of today (``load_tensors: CUDA0 model buffer size``)
are read alike. Sizes are MiB there; CLIP's first logs say MB and mean MiB.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from vramplan.engine_buffer import EngineBuffer
from vramplan.measurement.run import Failure, FailureKind
from vramplan.units import MIB

_MOST_LINES = 200_000
_LONGEST = 2_000

#: load_tensors:        CUDA0 model buffer size =  3847.55 MiB
_BUFFER = re.compile(
    r"(\w+):\s+([A-Za-z][\w()]{0,40}?)\s+"
    r"(?:(model|KV|RS|compute|output|input)\s+)?buffer size\s*=\s*([\d.]{1,14}) MiB",
    re.ASCII,
)
#: clip_model_load: model size:     595.49 MB
_PROJECTOR = re.compile(r"(?:clip\w*|load_hparams):\s+model size:\s*([\d.]{1,14}) Mi?B", re.ASCII)
_PROJECTOR_COMPUTE = re.compile(r"compute allocated memory:\s*([\d.]{1,14}) MB", re.ASCII)
_LAYERS = re.compile(r"offloaded (\d{1,4})/(\d{1,4}) layers to GPU", re.ASCII)
_SETTING = re.compile(
    r"llama_context|llama_init_from_model|llama_new_context_with_model|print_info|server"
)
#: a context begins: its caches are counted anew. llama_init_from_model: n_ctx         = 2048
_CONTEXT = re.compile(r"\bllama_\w+:\s+n_ctx\s*=")
#: since 2026: resolve_fused_ops: Flash Attention enabled
_FLASH_CHOSEN = re.compile(r"Flash Attention (?:was auto, set to )?(enabled|disabled)\b")
_VALUE = re.compile(r"\b(n_ctx|n_batch|n_ubatch|n_seq_max|flash_attn)\s*=\s*([\w-]{1,20})")
#: build: 4863 (4e39a3c), main: build = 4863, and today's build_info: b11549-0123abc
_BUILD = re.compile(r"\bbuild(?:_info: b|:\s*| =\s*)(\d{3,6})\b", re.ASCII)
_DEVICE = re.compile(r"Device \d+: ([^,]{1,80}), compute capability (\d{1,2}\.\d)", re.ASCII)
#: allocating 9216.00 MiB on device 0: cudaMalloc failed: out of memory
_REFUSED = re.compile(r"allocating ([\d.]{1,14}) MiB on device \d+: cudaMalloc failed", re.ASCII)
#: ggml_gallocr_reserve_n: failed to allocate CUDA0 buffer of size 9332334592
_REFUSED_BYTES = re.compile(r"failed to allocate \w{1,40} buffer of size (\d{1,18})\b", re.ASCII)
_COLOUR = re.compile(r"\x1b\[[0-9;]{0,12}m")
_FAILED = re.compile(
    r"failed to (?:allocate|load model|create context|initialize)|out of memory|error loading model"
)

#: caches, of which a model may have several
_CACHES = ("KV", "RS")

#: functions of llama.cpp's vision code, whose compute buffer is the projector's
_VISION = ("clip", "alloc_compute_meta", "mtmd")


@dataclass(slots=True)
class EngineLog:
    """What a log says; sizes in bytes, settings as printed."""

    buffers: list[EngineBuffer] = field(default_factory=list)
    settings: dict[str, str] = field(default_factory=dict)
    layers: tuple[int, int] | None = None  # on the GPU, of
    build: str | None = None
    device: str | None = None
    compute_capability: str | None = None
    failure: Failure | None = None


def read_log(lines: Iterable[str]) -> EngineLog:
    """Return what a log's lines say; of a buffer that is printed again the last size counts.

    But for the caches: a model with windowed layers has two, which are added up.
    """
    log = EngineLog()
    sizes: dict[tuple[str, str], int] = {}
    for number, raw in enumerate(lines):
        if number >= _MOST_LINES:
            break
        line = _COLOUR.sub("", raw[:_LONGEST])
        if _CONTEXT.search(line):  # maybe again: after a dry run, or for a second context
            sizes = {key: size for key, size in sizes.items() if key[1] not in _CACHES}
        _read_sizes(line, sizes)
        if found := _LAYERS.search(line):
            log.layers = (int(found[1]), int(found[2]))
        if _SETTING.search(line):
            log.settings |= dict(_VALUE.findall(line))
        if found := _FLASH_CHOSEN.search(line):
            log.settings["flash_attn"] = found[1]
        if found := _BUILD.search(line):
            log.build = f"b{found[1]}"
        if found := _DEVICE.search(line):
            log.device, log.compute_capability = found[1], found[2]
        _read_failure(line, log)
    log.buffers = [
        EngineBuffer(device=device, name=name, size_bytes=size)
        for (device, name), size in sizes.items()
    ]
    return log


def _read_sizes(line: str, sizes: dict[tuple[str, str], int]) -> None:
    if found := _BUFFER.search(line):
        function, device, name, size = found.groups()
        is_vision = function.startswith(_VISION)
        if is_vision:
            name = "projector compute" if name == "compute" else "projector"
        key = (device, name or "model")
        sizes[key] = _bytes(size) + (sizes.get(key, 0) if name in _CACHES else 0)
    elif found := _PROJECTOR.search(line):
        sizes["GPU", "projector"] = _bytes(found[1])
    elif found := _PROJECTOR_COMPUTE.search(line):
        sizes["GPU", "projector compute"] = _bytes(found[1])


def _read_failure(line: str, log: EngineLog) -> None:
    """Take the first failure; a later line may say how much was asked for, to the byte."""
    refused = _REFUSED.search(line)
    exact = _REFUSED_BYTES.search(line)
    if exact and log.failure is not None and log.failure.kind is FailureKind.OOM:
        log.failure = replace(log.failure, asked_bytes=int(exact[1]))
        return
    if not refused and not _FAILED.search(line):
        return
    asked = _bytes(refused[1]) if refused else None
    if log.failure is None or (asked is not None and log.failure.asked_bytes is None):
        is_memory = bool(refused) or "alloc" in line or "out of memory" in line
        log.failure = Failure(
            kind=FailureKind.OOM if is_memory else FailureKind.ERROR,
            phase="load",
            component="language_model",
            message=line.strip()[:300],
            asked_bytes=asked,
        )


def _bytes(text: str) -> int:
    try:
        return round(float(text) * MIB)
    except ValueError:  # 1.2.3
        return 0
