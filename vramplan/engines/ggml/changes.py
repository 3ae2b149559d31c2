"""The changes that a ggml engine's settings leave open, as its flags and variables."""

from __future__ import annotations

from collections.abc import Iterator

from vramplan.budget.change import Change, combine
from vramplan.engines.ggml.pipeline import GgmlPipeline
from vramplan.model import Settings


def changes(pipeline: GgmlPipeline, settings: Settings) -> Iterator[Change]:
    """Yield the changes that these settings leave open, cheapest first, then several at once."""
    single = list(_single_changes(pipeline, settings))
    yield from single
    smaller = [change for change in single if "gpu_layers" not in change.settings]
    yield from (combine(smaller[:count]) for count in range(2, len(smaller) + 1))


def _single_changes(pipeline: GgmlPipeline, settings: Settings) -> Iterator[Change]:
    yield from _window_changes(settings, is_lm_studio=pipeline.is_lm_studio)
    if settings.get("kv_type") == "f16" and settings.get("flash_attention") != "off":
        yield Change(
            settings={"kv_type": "q8_0"},
            line=_say(
                pipeline,
                "-ctk q8_0 -ctv q8_0",
                ollama="OLLAMA_KV_CACHE_TYPE=q8_0",
                lm_studio="K and V Cache Quantization Type: q8_0",
            ),
            cost="a KV cache of half the size, with little loss",
        )
    ubatch = settings.get("ubatch")
    if isinstance(ubatch, int) and ubatch > 128:
        yield Change(
            settings={"ubatch": 128},
            line=_say(
                pipeline,
                "-ub 128",
                ollama='"num_batch": 128 in the request\'s options',
                lm_studio="Physical Batch Size: 128",
            ),
            cost="prompts are read more slowly",
        )
    context = settings.get("context")
    while isinstance(context, int) and context > 2048:
        context //= 2
        yield Change(
            settings={"context": context},
            line=_say(
                pipeline,
                f"-c {context}",
                ollama=f"OLLAMA_CONTEXT_LENGTH={context}",
                lm_studio=f"lms load --context-length {context}",
            ),
            cost=f"the conversation and its images must fit {context} tokens",
        )
    yield from _expert_changes(pipeline, settings)
    if settings.get("gpu_layers", "auto") != "auto":
        yield Change(
            settings={"gpu_layers": "auto"},
            line=_say(
                pipeline,
                "no -ngl",
                ollama="no num_gpu in the request's options",
                lm_studio="no number of layers: Automatic Optimize Based on Hardware",
            ),
            cost="layers that do not fit run on the CPU",
        )


def _say(pipeline: GgmlPipeline, llama_cpp: str, *, ollama: str, lm_studio: str) -> str:
    """Return a change in the words of what starts the engine.

    LM Studio's are its command line's and its page's: lmstudio-ai/localization, en/config.json.
    """
    if pipeline.is_lm_studio:
        return lm_studio
    return ollama if pipeline.is_ollama else llama_cpp


def _window_changes(settings: Settings, *, is_lm_studio: bool) -> Iterator[Change]:
    """Yield what makes the caches smaller of layers that see a window; a model may have none."""
    if settings.get("swa_full") == "on":
        yield Change(
            settings={"swa_full": "off"},
            line="no --swa-full",
            cost="a conversation changed further back than the window is read anew",
        )
    elif "swa_full" in settings and settings.get("parallel", 1) != 1:
        # of a number of requests each has its part of the context, and all have a window
        yield Change(
            settings={"parallel": 1},
            line="Max Concurrent Predictions: 1" if is_lm_studio else "-np 1",
            cost="requests wait for one another",
        )


def _expert_changes(pipeline: GgmlPipeline, settings: Settings) -> Iterator[Change]:
    """Yield more and more layers whose experts stay in host memory, up to all.

    An engine that may choose the layers itself does so with the experts too.
    """
    bounds = pipeline.constraints.get("cpu_moe")
    layers = bounds.maximum if bounds is not None else None
    if layers is None or settings.get("gpu_layers", "auto") == "auto":
        return
    now = settings.get("cpu_moe", 0)
    steps = [-(-layers * eighth // 8) for eighth in range(1, 9)]
    for count in dict.fromkeys(steps):
        # llama-server reads LLAMA_ARG_*, and Ollama starts it with its own environment
        if isinstance(now, int) and count > now:
            yield Change(
                settings={"cpu_moe": count},
                line=_say(
                    pipeline,
                    f"--n-cpu-moe {count}",
                    ollama=f"LLAMA_ARG_N_CPU_MOE={count}",
                    lm_studio=f"experts of {count} layers forced onto the CPU",
                ),
                cost=f"the experts of {count} of {layers} layers are computed on the CPU",
            )
