"""A ggml pipeline at its settings: everything that is decided before layers are placed."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from vramplan.engines.ggml.build_rules import EngineRules, has_flash_attention, rules_of
from vramplan.engines.ggml.closed_form import Batch
from vramplan.engines.ggml.defaults import (
    CardMemory,
    llama_cpp_choices,
    ollama_choices,
)
from vramplan.engines.ggml.experts import NO_HOST_EXPERTS, HostExperts
from vramplan.engines.ggml.gguf_tensors import model_from_gguf
from vramplan.engines.ggml.kv_cache import (
    QUANTISED,
    cache_tokens,
    check_heads,
    layer_cache_bytes,
    layer_caches,
    window_tokens,
)
from vramplan.engines.ggml.pipeline import GgmlPipeline, ModelFile
from vramplan.engines.ggml.recurrent_state import layer_states
from vramplan.engines.ggml.weights import GgmlModel, once_each, read_model
from vramplan.errors import UsageError, did_you_mean
from vramplan.model import Settings
from vramplan.quick_dataclass import dataclass
from vramplan.settings import AUTO, KV_TYPES, experts_of, key_type, value_type

if TYPE_CHECKING:
    from vramplan.engines.ggml.vision_model import VisionModel


#: "flash_attn is not compatible with Grok - forcing off" (llama.cpp, src/llama-context.cpp)
NEVER_FLASH = frozenset({"grok"})


@dataclass(frozen=True, slots=True, kw_only=True)
class GgmlRun:
    """What an engine is asked to load, and the rules it follows.

    `wanted_layers` is None when the engine itself decides how many layers go to the GPU; `experts`
    are those that are kept in host memory because the settings say so, and `remarks` what is to be
    said of settings that the engine chose.
    """

    pipeline: GgmlPipeline
    settings: Settings
    compute_capability: str
    model: GgmlModel
    vision: VisionModel | None
    rules: EngineRules
    batch: Batch
    wanted_layers: int | None
    experts: HostExperts = NO_HOST_EXPERTS
    may_shrink_context: bool = False
    remarks: tuple[str, ...] = ()

    def with_context(self, tokens: int) -> GgmlRun:
        """Return the run with a context of `tokens`, of all sequences together."""
        settings = {**self.settings, "context": tokens}
        batch = batch_of(
            self.model,
            settings,
            self.rules,
            has_flash=self.batch.has_flash,
            is_shared=not self.is_ollama,
        )
        return replace(self, settings=settings, batch=batch)

    @property
    def asked_layers(self) -> int:
        """Return how many layers go to the GPU unless the engine finds that they do not fit."""
        return self.model.total_layers if self.wanted_layers is None else self.wanted_layers

    @property
    def has_vision_flash(self) -> bool:
        """Return whether the vision encoder runs flash attention."""
        return self.batch.has_flash and self.rules.projector_has_flash

    @property
    def is_ollama(self) -> bool:
        """Return whether Ollama starts the engine, with its own rules on top."""
        return self.pipeline.is_ollama


def read_run(
    pipeline: GgmlPipeline,
    settings: Settings,
    compute_capability: str,
    card: CardMemory | None = None,
) -> GgmlRun:
    """Return the run that `settings` over the pipeline's defaults ask for.

    What is left to the engine may depend on the `card`; without one it is what a small card gets.
    Raises UsageError for a setting that cannot be, CatalogError for a `ggml` mapping that does not
    say what it must.
    """
    asked = {**pipeline.defaults, **settings}
    model = once_each(pipeline, _model_of)
    rules = rules_of(str(asked["engine"]))
    has_flash = has_flash_attention(str(asked["flash_attention"]), rules, compute_capability)
    has_flash = has_flash and model.architecture not in NEVER_FLASH
    is_ollama, has_vision = pipeline.is_ollama, pipeline.has_projector
    if card is not None:
        card = replace(card, total_bytes=max(0, card.total_bytes - pipeline.overhead_bytes))
    choices = (
        ollama_choices(model, asked, card, has_images=has_vision, has_flash=has_flash)
        if is_ollama
        else llama_cpp_choices(model, asked, rules)
    )
    chosen = choices.settings
    return GgmlRun(
        pipeline=pipeline,
        settings=chosen,
        compute_capability=compute_capability,
        model=model,
        vision=_vision(pipeline, rules, chosen) if has_vision else None,
        rules=rules,
        batch=batch_of(model, chosen, rules, has_flash=has_flash, is_shared=not is_ollama),
        wanted_layers=_wanted_layers(model, chosen),
        experts=_host_experts(model, chosen),
        may_shrink_context=asked["context"] == AUTO and not is_ollama,
        remarks=choices.remarks,
    )


def _vision(pipeline: GgmlPipeline, rules: EngineRules, chosen: Settings) -> VisionModel | None:
    """Return the projector at the build; most models have none, so none of its code is loaded."""
    from vramplan.engines.ggml.projector_entry import read_projector
    from vramplan.engines.ggml.vision_model import at_build

    return at_build(read_projector(pipeline), rules.build, _image(chosen))


def _model_of(pipeline: GgmlPipeline) -> GgmlModel:
    """Return the model of a file's header, else that of the catalogue's entry."""
    if isinstance(pipeline.model, ModelFile):
        return model_from_gguf(pipeline.model.header)
    return read_model(pipeline)


def batch_of(
    model: GgmlModel, chosen: Settings, rules: EngineRules, *, has_flash: bool, is_shared: bool
) -> Batch:
    """Return what the engine reserves for: `context`, `ubatch`, `parallel` and `kv_type`.

    Of `kv_unified` and `swa_full` only ``on`` tells something. `is_shared`: the context is for all
    sequences together, as llama.cpp has it. Raises UsageError for a setting that cannot be.
    """
    sequences = _count(chosen, "parallel")
    is_unified = chosen.get("kv_unified") == "on" or not rules.has_streams
    streams = 1 if is_unified else sequences
    context = _count(chosen, "context")
    tokens = cache_tokens(context, sequences, is_shared=is_shared, is_unified=is_unified)
    keys, values = key_type(chosen), value_type(chosen)
    ubatch = min(_count(chosen, "ubatch"), tokens * streams)
    window = tokens
    if rules.has_window_cache and chosen.get("swa_full") != "on":
        window = window_tokens(model, tokens, ubatch, sequences // streams)
    _check_kv_type(model, keys, has_flash=True)  # keys in blocks need no flash attention
    _check_kv_type(model, values, has_flash=has_flash)
    caches = _caches(model, tokens, window, streams, (keys, values))
    return Batch(
        tokens=ubatch,
        context=tokens,
        sequences=sequences,
        cache_layer_bytes=max(caches),
        has_flash=has_flash,
        layer_caches=() if model.language is None else caches,
        window_context=window if model.window else 0,
        cache_type=keys,
        value_type=values,
        is_cache_on_host=chosen.get("kv_offload") == "off",
        layer_states=layer_states(model, sequences),
        is_unified=is_unified,
    )


def _caches(
    model: GgmlModel, tokens: int, window: int, streams: int, types: tuple[str, str]
) -> tuple[int, ...]:
    if model.language is None:
        return (layer_cache_bytes(model, tokens * streams, *types),)
    return layer_caches(model, tokens, window, streams, *types)


def _check_kv_type(model: GgmlModel, kv_type: str, *, has_flash: bool) -> None:
    if kv_type not in KV_TYPES:
        hint = did_you_mean(kv_type, KV_TYPES) or "use " + ", ".join(KV_TYPES)
        raise UsageError(f"unknown kv_type {kv_type!r}", hint=hint)
    if kv_type in QUANTISED and not has_flash:
        hint = "set flash_attention=on or kv_type=f16"
        raise UsageError(f"kv_type {kv_type} needs flash attention", hint=hint)
    try:
        check_heads(model, kv_type)
    except ValueError as problem:
        raise UsageError(f"kv_type {kv_type} does not suit the model: {problem}") from None


def _image(chosen: Settings) -> tuple[int, int] | None:
    value = chosen.get("image")
    return value if isinstance(value, tuple) else None


def _count(chosen: Settings, key: str) -> int:
    value = chosen[key]
    if not isinstance(value, int) or value < 1:
        raise UsageError(f"{key} must be a whole number of at least 1, not {value!r}")
    return value


def _wanted_layers(model: GgmlModel, chosen: Settings) -> int | None:
    wanted, total = chosen["gpu_layers"], model.total_layers
    if wanted in {"all", "auto"}:
        return total if wanted == "all" else None
    if not isinstance(wanted, int) or not 0 <= wanted <= total:
        hint = f"the model has {total} layers; write a number, all or auto"
        raise UsageError(f"gpu_layers {wanted!r} is not within 0 to {total}", hint=hint)
    return wanted


def _host_experts(model: GgmlModel, chosen: Settings) -> HostExperts:
    wanted = chosen.get("cpu_moe", 0)
    if wanted == 0:
        return NO_HOST_EXPERTS
    if not model.has_experts:
        hint = "it is for mixtures of experts; gpu_layers moves whole layers"
        raise UsageError("cpu_moe: the model has no experts", hint=hint)
    first, stop = experts_of(wanted)
    if first >= model.layers:
        hint = f"its layers are 0 to {model.layers - 1}"
        raise UsageError(f"cpu_moe {wanted}: the model has no such layer", hint=hint)
    return HostExperts(first=first, stop=min(stop, model.layers))
