"""LM Studio: its own switches as the engine's settings, and what it would say of a model.

It runs llama.cpp, so what is allocated follows llama.cpp's rules. Its switches have other names and
other units: a share of the layers, a share of the layers' experts. Before it loads anything it
adds up what a model will take (`lms load --estimate-only`), and its guardrails refuse what is too
much. How it adds up, and where its guardrails called relaxed, balanced and strict draw the line, is
documented nowhere; of a limit of one's own it is: "Models will not load if loading them would
exceed this limit". Sources: lmstudio-ai/lmstudio-js, packages/lms-kv-config/src/schema.ts (switches
and defaults) and packages/lms-shared-types/src (EstimatedResourcesUsage.ts, LLMLoadModelConfig.ts);
lmstudio-ai/localization, en/settings.json; lmstudio-ai/docs, 3_cli/0_local-models/load.md.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from vramplan.errors import UsageError
from vramplan.model import Buffer, LineKind, Settings, SettingValue, buffer_bytes
from vramplan.quick_typing import TYPE_CHECKING
from vramplan.setting_values import AUTO, limit_of, share_of
from vramplan.units import format_size

if TYPE_CHECKING:
    from vramplan.engines.ggml.pipeline import GgmlPipeline
    from vramplan.engines.ggml.weights import GgmlModel

RUNTIME = "lmstudio"
#: what it counts: weights and context, not what the driver and the kernels take
_COUNTED = (
    LineKind.WEIGHTS,
    LineKind.KV_CACHE,
    LineKind.RECURRENT_STATE,
    LineKind.COMPUTE_BUFFER,
    LineKind.PROJECTOR_COMPUTE,
)
#: 22.92 GB estimated of what took some 11.5 (lmstudio-ai/lmstudio-bug-tracker#1631)
_MOST_TIMES = 2


def own_defaults(told: Mapping[str, SettingValue]) -> dict[str, SettingValue]:
    """Return the defaults of LM Studio's own switches, with what its settings say over them.

    The guardrail of a new installation is the strict one.
    """
    return {
        "gpu_offload": AUTO,
        "expert_offload": "off",
        "guardrail": "strict",
        **{key: value for key, value in told.items() if key == "guardrail"},
    }


def in_engine_words(model: GgmlModel, asked: Settings) -> tuple[dict[str, SettingValue], list[str]]:
    """Return the engine's settings for LM Studio's shares, and what is to be said of them.

    Raises UsageError where both are given.
    """
    found: dict[str, SettingValue] = {}
    remarks = []
    share = share_of(asked.get("gpu_offload", AUTO))
    if share is not None:
        if asked.get("gpu_layers", AUTO) != AUTO:
            hint = "gpu_offload is LM Studio's share of the layers, gpu_layers their number"
            raise UsageError("gpu_offload and gpu_layers say the same thing twice", hint=hint)
        layers: SettingValue = "all" if share >= 1 else int(share * model.layers)
        found["gpu_layers"] = layers
        if 0 < share < 1:
            remarks.append(
                f"gpu_offload={asked['gpu_offload']}: {layers} of {model.layers} layers, rounded "
                "down; how LM Studio rounds is not documented, so it may be one more"
            )
    experts = share_of(asked.get("expert_offload", "off"))
    if experts:
        if not model.has_experts:
            hint = "it is for mixtures of experts; gpu_offload moves whole layers"
            raise UsageError("expert_offload: the model has no experts", hint=hint)
        if asked.get("cpu_moe", 0) != 0:
            raise UsageError("expert_offload and cpu_moe say the same thing twice")
        kept: SettingValue = "all" if experts >= 1 else int(experts * model.layers)
        found["cpu_moe"] = kept
        if 0 < experts < 1:
            remarks.append(
                f"expert_offload={asked['expert_offload']}: the experts of {kept} of "
                f"{model.layers} layers on the CPU, from the first, rounded down: not documented"
            )
    return found, remarks


def is_even(pipeline: GgmlPipeline, asked: Settings) -> bool:
    """Return whether it shares layers out alike among several cards: its default, "evenly".

    Where it leaves the placement to llama.cpp (autoFit: "Let llama.cpp choose context and GPU
    placement at load time") that goes by what is free.
    """
    return pipeline.is_lm_studio and asked["gpu_layers"] != AUTO


def says(buffers: tuple[Buffer, ...]) -> tuple[int, int]:
    """Return what LM Studio would count for these buffers: on GPUs, and in all, bytes."""
    gpu = buffer_bytes(buffers, *_COUNTED)
    return gpu, gpu + buffer_bytes(buffers, *_COUNTED, on_host=True)


def notes(settings: Settings, buffers: tuple[Buffer, ...]) -> Iterator[str]:
    """Yield what LM Studio would say of a model before it loads it."""
    gpu, total = (format_size(size, up=True) for size in says(buffers))
    yield (
        f"`lms load --estimate-only` would say about {gpu} of GPU memory and {total} in all "
        "(weights and context; its GB are GiB): assumed, since how it counts is not documented"
    )
    yield guardrail_in_words(settings, buffers)


def guardrail_in_words(settings: Settings, buffers: tuple[Buffer, ...]) -> str:
    """Return what the guardrail makes of a model, as far as anybody can tell."""
    guardrail = str(settings.get("guardrail", "off"))
    limit = limit_of(guardrail)
    _, total = says(buffers)
    if guardrail == "off":
        return "LM Studio's guardrails are off: it refuses nothing"
    if limit is None:
        return (
            f"LM Studio's guardrail is {guardrail}: where that draws the line is not documented, "
            "so whether it refuses the model cannot be said; guardrail=8GiB is a limit of your own"
        )
    at_most = format_size(limit, up=False)
    takes = format_size(total, up=True)
    if total > limit:
        return f"LM Studio's guardrail refuses it: {takes} are more than its limit of {at_most}"
    if total * _MOST_TIMES > limit:
        return (
            f"LM Studio's guardrail may refuse it: the model takes {takes} of its limit of "
            f"{at_most}, and its own estimate has been twice as much (lmstudio-bug-tracker#1631)"
        )
    return f"LM Studio's guardrail lets it pass: {takes} are within its limit of {at_most}"
