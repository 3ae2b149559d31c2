"""The engine's plan for a run on a card that is not there, as the figures of an estimate."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from vramplan.engine_buffer import in_our_words
from vramplan.engines.ggml.figures import Figure, Figures, over_cards
from vramplan.engines.ggml.kv_cache import most_cache_bytes
from vramplan.engines.ggml.layer_fit import Fit, margin_bytes, other_margin_bytes
from vramplan.engines.ggml.load_plan import GgmlRun
from vramplan.engines.ggml.pipeline import ModelFile
from vramplan.engines.ggml.witness.answer import EngineAnswer, RefusedError, ask_engine
from vramplan.engines.ggml.witness.dry_run import NEXT_CONTEXT, WITH_ADAPTERS
from vramplan.engines.ggml.witness.hollow_file import file_of
from vramplan.engines.ggml.witness.pretended_card import PretendedCard
from vramplan.errors import MeasurementError
from vramplan.model import Band, Device, LineKind, Origin, buffer_bytes
from vramplan.quick_dataclass import replace
from vramplan.setting_values import AUTO, files_of
from vramplan.settings import format_setting
from vramplan.units import MIB

if TYPE_CHECKING:
    from vramplan.sources.gguf_header import GgufFile

#: the engine prints hundredths of a MiB
_ROUNDING_BYTES = MIB // 200
#: a card on which everything fits, for a question that no card belongs to
_ENDLESS_BYTES = 1 << 46
#: what a build that does not know a family says of its files
_UNKNOWN = ("unknown model architecture", "unsupported model architecture")


class UnknownError(MeasurementError):
    """The engine that is installed does not tell: it is too old, too slow, or has no memory."""


def plan(run: GgmlRun, fit: Fit, free_bytes: Sequence[int] | None) -> tuple[Fit, Figures]:
    """Return what the engine loads where, and its figures; `fit` is ours, for what was asked.

    Without `free_bytes` the cards have room for all. Raises UnknownError where it cannot tell, and
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
    settings |= {"split_mode": "layer", "main_gpu": "0"}  # of the cards that are used
    settings["tensor_split"] = "/".join(map(str, fit.shares)) if fit.shares else AUTO
    if is_free and not run.has_own_shares:
        settings["tensor_split"] = AUTO
    free = list(free_bytes) if is_free and free_bytes is not None else []
    free = free or [_ENDLESS_BYTES] * len(fit.placement.cards)
    cards = [
        PretendedCard(
            name=f"card {number}",
            total_bytes=one,
            free_bytes=one,
            margin_bytes=_margin_bytes(run, number, free[0]) if is_free else 0,
            is_remote=number < run.remotes,
        )
        for number, one in enumerate(free)
    ]
    assert isinstance(run.pipeline.model, ModelFile)
    try:
        told = _told(run.pipeline.model.header, settings, cards)
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


def plan_next(fit: Fit) -> tuple[tuple[int, ...], int]:
    """Return the compute buffers of the context for layers that guess ahead, and the host's.

    Raises MissingError without the engine, MeasurementError where it does not tell.
    """
    words = {
        "load_mtp": "on",
        NEXT_CONTEXT: "on",
        "kv_type": "f16",  # that of a draft model, whose context it is
        "key_type": "f16",
        "value_type": "f16",
    }
    return _compute_bytes(_told_as_placed(fit, words), len(fit.placement.cards))


def plan_with_adapters(fit: Fit) -> tuple[tuple[int, ...], int, str]:
    """Return the compute buffers on each card, the host's, and which engine has them.

    They are those of the model's graph with its LoRA adapters in it. Raises as `plan_next` does.
    """
    return _plan_as_placed(fit, {WITH_ADAPTERS: "on"})


def plan_draft(fit: Fit) -> tuple[tuple[int, ...], int, str]:
    """Return the same of a draft model, whose fit this is. Raises as `plan_next` does."""
    return _plan_as_placed(fit, {})


def _plan_as_placed(fit: Fit, words: Mapping[str, str]) -> tuple[tuple[int, ...], int, str]:
    told = _told_as_placed(fit, {"load_mtp": "off", **words})
    return (*_compute_bytes(told, len(fit.placement.cards)), told.version)


def _compute_bytes(told: EngineAnswer, cards: int) -> tuple[tuple[int, ...], int]:
    held = in_our_words(told.buffers)
    kind = LineKind.COMPUTE_BUFFER
    sizes = tuple(
        sum(one.size_bytes for one in held if one.kind is kind and one.device == Device(gpu=number))
        for number in range(cards)
    )
    return sizes, buffer_bytes(held, kind, on_host=True)


def _told_as_placed(fit: Fit, words: Mapping[str, str]) -> EngineAnswer:
    """Return the engine's answer where layers are where `fit` has them, and cards have room."""
    run = fit.run
    settings = {key: format_setting(key, value) for key, value in run.settings.items()}
    settings |= words
    settings |= {
        "context": str(run.batch.context * run.batch.streams),
        "gpu_layers": str(fit.on_gpu),
        "split_mode": "layer",
        "main_gpu": "0",
        "tensor_split": "/".join(map(str, fit.shares)) if fit.shares else AUTO,
    }
    cards = [
        PretendedCard(
            name=f"card {number}",
            total_bytes=_ENDLESS_BYTES,
            free_bytes=_ENDLESS_BYTES,
            margin_bytes=0,
            is_remote=number < run.remotes,
        )
        for number in range(len(fit.placement.cards))
    ]
    assert isinstance(run.pipeline.model, ModelFile)
    return _told(run.pipeline.model.header, settings, cards)


def _margin_bytes(run: GgmlRun, card: int, free_bytes: int) -> int:
    return (other_margin_bytes if card else margin_bytes)(run, free_bytes)


def _told(
    header: GgufFile, settings: Mapping[str, str], cards: Sequence[PretendedCard]
) -> EngineAnswer:
    """Return the engine's answer, which is remembered."""
    beside = tuple(_stamp_of(path) for path in files_of(settings.get("lora")))
    key = (_stamp(header), beside, tuple(sorted(settings.items())), tuple(cards))
    if key not in _ANSWERS:
        with file_of(header) as path:
            told = ask_engine(path, settings, card=cards[0], others=cards[1:])
        while len(_ANSWERS) >= _MOST_ANSWERS:
            del _ANSWERS[next(iter(_ANSWERS))]
        _ANSWERS[key] = told
    return _ANSWERS[key]


def _stamp(header: GgufFile) -> Hashable:
    """Return what tells a file from others, and from others of its name."""
    try:
        return _stamp_of(header.path)
    except OSError:  # on a hub: only its header is here
        keys = tuple(sorted((key, str(value)) for key, value in header.metadata.items()))
        return header.path, header.tensors, keys


def _stamp_of(path: str) -> Hashable:
    found = Path(path).stat()
    return path, found.st_size, found.st_mtime_ns


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

    parts = fit.placement.cards

    def on_gpu(
        kind: LineKind, bounds: Callable[[int, int], tuple[int, int]] | None = None
    ) -> Figure:
        """Return a line of each card; `bounds` of what is another build's, by card and size."""
        bands = []
        for number in range(len(parts)):
            place = Device(gpu=number)
            size = sum(one.size_bytes for one in held if one.kind is kind and one.device == place)
            low, high = (size, size) if is_same or bounds is None else bounds(number, size)
            bands.append(
                Band(
                    low_bytes=max(min(low, size - _ROUNDING_BYTES), 0),
                    expected_bytes=size,
                    high_bytes=max(high, size + _ROUNDING_BYTES if size else 0),
                )
            )
        return over_cards(bands, Origin.WITNESSED if is_same else Origin.ASSUMED, source)

    def most_cache(number: int, size: int) -> tuple[int, int]:
        part = parts[number]
        behind = run.model.layers - part.stop
        return size, most_cache_bytes(run.model, run.batch, part.stop - part.first, behind)

    def on_host(kind: LineKind) -> int:
        return buffer_bytes(held, kind, on_host=True)

    name = run.model.architecture or "the architecture"
    blocks = fit.placement.blocks_on_gpu
    first = run.model.layers - blocks
    return Figures(
        weights=on_gpu(LineKind.WEIGHTS),
        cache=on_gpu(LineKind.KV_CACHE, most_cache),
        states=on_gpu(LineKind.RECURRENT_STATE),
        compute=on_gpu(LineKind.COMPUTE_BUFFER, lambda _, size: (size // 2, 2 * size)),
        host_model_bytes=on_host(LineKind.WEIGHTS),
        host_cache_bytes=on_host(LineKind.KV_CACHE),
        host_states_bytes=on_host(LineKind.RECURRENT_STATE),
        host_compute_bytes=on_host(LineKind.COMPUTE_BUFFER),
        experts_on_cpu=sum(layer >= first for layer in told.host_experts),
        remarks=(f"{name} is not known to the last buffer: {told.version} itself was asked",),
    )
