"""What ``ollama ps`` shows of a model, beside what is in use.

Ollama adds up the sizes that llama-server prints of its buffers. Of lines that say the same of the
same device it keeps the last: of a model with windows the caches of all its other layers are
missing. Weights that stay mapped from the file count once, however often they are loaded. With all
layers on GPUs the host's part is left out. Nobody prints the projector's weights, the CUDA context
and the kernels' pools. Sources: ollama/ollama, llm/llama_server.go (memoryParsingWriter,
MemorySize), cmd/cmd.go (ListRunningHandler), format/bytes.go (HumanBytes).
"""

from __future__ import annotations

from vramplan.model import LANGUAGE_MODEL, LineKind, buffer_bytes
from vramplan.quick_dataclass import dataclass
from vramplan.quick_typing import TYPE_CHECKING
from vramplan.units import format_size

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vramplan.engines.ggml.figures import Figures
    from vramplan.engines.ggml.layer_fit import Fit
    from vramplan.model import Buffer

_PRINTED = (
    LineKind.KV_CACHE,
    LineKind.RECURRENT_STATE,
    LineKind.COMPUTE_BUFFER,
    LineKind.PROJECTOR_COMPUTE,
)
_SHOWS, _REST = "`ollama ps` would show ", ", of which "
_UNITS = ((10**12, "TB"), (10**9, "GB"), (10**6, "MB"), (10**3, "KB"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """What it shows, bytes: in all and on GPUs. `unseen_cache` is what it missed of the cache."""

    total: int
    gpu: int
    unseen_cache: int

    @property
    def size(self) -> str:
        """Return the column SIZE."""
        return human_bytes(self.total)

    @property
    def processor(self) -> str:
        """Return the column PROCESSOR."""
        if self.gpu == 0:
            return "100% CPU"
        if self.gpu == self.total:
            return "100% GPU"
        share = (self.total - self.gpu) / self.total * 100
        on_cpu = int(share + 0.5)  # Go rounds halves up
        return f"{on_cpu}%/{100 - on_cpu}% CPU/GPU"


def human_bytes(size: int) -> str:
    """Return a size as Ollama writes it: in powers of ten, nothing behind the point from 10 on."""
    for unit, name in _UNITS:
        if size >= unit:
            value = size / unit
            if value >= 10 or value == int(value):
                return f"{int(value)} {name}"
            return f"{value:.1f} {name}"
    return f"{size} B"


def shown(fit: Fit, figures: Figures, buffers: Sequence[Buffer]) -> Shown:
    """Return what ``ollama ps`` shows of a model that is loaded so."""
    run, placement = fit.run, fit.placement
    kept = tuple(buffers)
    weights = figures.weights.band.expected_bytes
    on_gpu, on_host = (
        _unseen(fit, is_on_gpu=True),
        _unseen(fit, is_on_gpu=False),
    )
    gpu = weights + buffer_bytes(kept, *_PRINTED) - on_gpu
    if fit.on_gpu >= run.model.total_layers and not figures.experts_on_cpu:
        return Shown(total=gpu, gpu=gpu, unseen_cache=on_gpu)
    # the file cannot be mapped and on the GPU with more than it has
    mapped = min(placement.mapped_bytes, max(run.model.weights_bytes - weights, 0))
    host = mapped + buffer_bytes(kept, *_PRINTED, on_host=True) - on_host
    return Shown(total=gpu + host, gpu=gpu, unseen_cache=on_gpu + on_host)


def _unseen(fit: Fit, *, is_on_gpu: bool) -> int:
    """Return the cache whose size is printed first, of two that say the same: without windows."""
    run, batch = fit.run, fit.run.batch
    shape = run.model.language
    if shape is None or not batch.layer_caches:
        return 0
    wide = narrow = 0
    placement = fit.placement
    for number, (layer, size) in enumerate(zip(shape.layers, batch.layer_caches, strict=True)):
        is_here = placement.card_of(number) >= 0 and not batch.is_cache_on_host
        if is_here is is_on_gpu:
            narrow += size if layer.is_windowed else 0
            wide += 0 if layer.is_windowed else size
    return wide if narrow else 0


def note(fit: Fit, figures: Figures, buffers: Sequence[Buffer], used_bytes: int) -> str:
    """Return what it shows, and what that leaves out."""
    run = fit.run
    if run.draft is not None:
        return (
            f"{_SHOWS}the draft model's buffers or the model's, whichever were loaded last: it "
            "keeps one size of each kind"
        )
    found = shown(fit, figures, buffers)
    missing = ["the CUDA context and pools"]
    if any(
        one.component != LANGUAGE_MODEL and one.kind is LineKind.WEIGHTS and not one.device.is_host
        for one in buffers
    ):
        missing.append("the projector's weights")
    if run.adapters:
        missing.append("the adapters")
    if found.unseen_cache:
        size = format_size(found.unseen_cache, up=True)
        missing.append(f"the {size} of cache of the layers without a window")
    *most, last = missing
    what = f"{', '.join(most)} and {last}" if most else last
    return (
        f"{_SHOWS}{found.size} and {found.processor}{_REST}"
        f"{format_size(found.gpu, up=True)} on GPUs; in use there are "
        f"{format_size(used_bytes, up=True)}: {what} are not in it"
    )


def in_short(notes: Sequence[str]) -> str:
    """Return the columns of `note`, where it is among the notes of an estimate."""
    told = next((one for one in notes if one.startswith(_SHOWS)), "")
    return told.partition(_REST)[0] if _REST in told else ""
