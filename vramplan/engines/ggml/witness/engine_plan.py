"""The engine's plan for a run on a card that is not there, as the figures of an estimate."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from vramplan.engine_buffer import in_our_words
from vramplan.engines.ggml.figures import Figure, Figures
from vramplan.engines.ggml.kv_cache import most_cache_bytes
from vramplan.engines.ggml.layer_fit import Fit, margin_bytes
from vramplan.engines.ggml.load_plan import GgmlRun
from vramplan.engines.ggml.pipeline import ModelFile
from vramplan.engines.ggml.witness.answer import EngineAnswer, RefusedError, ask_engine
from vramplan.engines.ggml.witness.hollow_file import file_of
from vramplan.engines.ggml.witness.pretended_card import PretendedCard
from vramplan.errors import MeasurementError
from vramplan.model import Band, LineKind, Origin, buffer_bytes
from vramplan.quick_dataclass import replace
from vramplan.settings import AUTO, format_setting
from vramplan.units import MIB

if TYPE_CHECKING:
    from vramplan.sources.gguf import GgufFile

#: the engine prints hundredths of a MiB
_ROUNDING_BYTES = MIB // 200
#: a card on which everything fits, for a question that no card belongs to
_ENDLESS_BYTES = 1 << 46
#: what a build that does not know a family says of its files
_UNKNOWN = ("unknown model architecture", "unsupported model architecture")


class UnknownError(MeasurementError):
    """The engine that is installed does not tell: it is too old, too slow, or has no memory."""


def plan(run: GgmlRun, fit: Fit, free_bytes: int | None) -> tuple[Fit, Figures]:
    """Return what the engine loads where, and its figures; `fit` is ours, for what was asked.

    Without `free_bytes` the card has room for all. Raises UnknownError where it cannot tell, and
    MeasurementError with its reason where it refuses the file.
    """
    is_free = run.wanted_layers is None and free_bytes is not None
    settings = {key: format_setting(key, value) for key, value in fit.run.settings.items()}
    settings["load_mtp"] = "off"  # what guesses ahead is added to the plan
    settings["context"] = str(fit.run.batch.context * fit.run.batch.streams)
    if is_free:
        settings["gpu_layers"] = AUTO
        settings["context"] = AUTO if run.may_shrink_context else settings["context"]
    else:
        settings["gpu_layers"] = str(fit.on_gpu)
    free = free_bytes if is_free and free_bytes is not None else _ENDLESS_BYTES
    margin = margin_bytes(run, free) if is_free else 0
    card = PretendedCard(name="card", total_bytes=free, free_bytes=free, margin_bytes=margin)
    assert isinstance(run.pipeline.model, ModelFile)
    try:
        told = _told(run.pipeline.model.header, settings, card)
    except RefusedError as problem:
        why = str(problem)
        if "out of memory" in why or any(one in why for one in _UNKNOWN):
            raise UnknownError(why) from None
        raise
    except MeasurementError as problem:
        raise UnknownError(str(problem)) from None
    if told.layers is None:
        raise UnknownError("the engine did not say where layers go")
    if is_free and run.may_shrink_context and told.context:
        fit = Fit(run=run.with_context(told.context), on_gpu=told.layers[0])
    else:
        fit = replace(fit, on_gpu=told.layers[0])
    return fit, _figures(fit, told)


def _told(header: GgufFile, settings: Mapping[str, str], card: PretendedCard) -> EngineAnswer:
    """Return the engine's answer, which is remembered."""
    key = (_stamp(header), tuple(sorted(settings.items())), card)
    if key not in _ANSWERS:
        with file_of(header) as path:
            told = ask_engine(path, settings, card=card)
        while len(_ANSWERS) >= _MOST_ANSWERS:
            del _ANSWERS[next(iter(_ANSWERS))]
        _ANSWERS[key] = told
    return _ANSWERS[key]


def _stamp(header: GgufFile) -> Hashable:
    """Return what tells a file from others, and from others of its name."""
    try:
        found = Path(header.path).stat()
    except OSError:  # on a hub: only its header is here
        keys = tuple(sorted((key, str(value)) for key, value in header.metadata.items()))
        return header.path, header.tensors, keys
    return header.path, found.st_size, found.st_mtime_ns


_ANSWERS: dict[Hashable, EngineAnswer] = {}
_MOST_ANSWERS = 256


def _figures(fit: Fit, told: EngineAnswer) -> Figures:
    run = fit.run
    build = told.version.rpartition(".")[2]
    is_same = build == str(run.rules.build)
    source = f"llama.cpp's own plan ({told.version}) for a CUDA card that is not there"
    if not is_same:
        source += f"; what b{run.rules.build} does is not known"

    held = in_our_words(told.buffers)

    def on_gpu(kind: LineKind, high: int | None = None, low: int | None = None) -> Figure:
        size = buffer_bytes(held, kind)
        band = Band(
            low_bytes=max(size - _ROUNDING_BYTES, 0),
            expected_bytes=size,
            high_bytes=size + _ROUNDING_BYTES if size else 0,
        )
        if not is_same:
            band = Band(
                low_bytes=min(band.low_bytes, size if low is None else low),
                expected_bytes=size,
                high_bytes=max(band.high_bytes, size if high is None else high),
            )
        origin = Origin.WITNESSED if is_same else Origin.ASSUMED
        return Figure(band=band, origin=origin, source=source)

    def on_host(kind: LineKind) -> int:
        return buffer_bytes(held, kind, on_host=True)

    name = run.model.architecture or "the architecture"
    blocks = fit.placement.blocks_on_gpu
    compute = buffer_bytes(held, LineKind.COMPUTE_BUFFER)
    first = run.model.layers - blocks
    return Figures(
        weights=on_gpu(LineKind.WEIGHTS),
        cache=on_gpu(LineKind.KV_CACHE, high=most_cache_bytes(run.model, run.batch, blocks)),
        states=on_gpu(LineKind.RECURRENT_STATE),
        compute=on_gpu(LineKind.COMPUTE_BUFFER, high=2 * compute, low=compute // 2),
        host_model_bytes=on_host(LineKind.WEIGHTS),
        host_cache_bytes=on_host(LineKind.KV_CACHE),
        host_states_bytes=on_host(LineKind.RECURRENT_STATE),
        host_compute_bytes=on_host(LineKind.COMPUTE_BUFFER),
        experts_on_cpu=sum(layer >= first for layer in told.host_experts),
        remarks=(f"{name} is not known to the last buffer: {told.version} itself was asked",),
    )
