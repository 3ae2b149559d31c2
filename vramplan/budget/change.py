"""The changes that settings leave open, each said in the user's own language, with its cost."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from vramplan.engines.door import GGML_RUNTIMES
from vramplan.model import Pipeline, Settings, SettingValue

NO_COST = "nothing"


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """Settings to change, how a user says it, and what it costs."""

    settings: Mapping[str, SettingValue]
    line: str
    cost: str
    is_last_resort: bool = False


def combine(chain: Iterable[Change]) -> Change:
    """Return changes as one. Where two change the same setting, the later one stands alone."""
    kept: list[Change] = []
    for change in chain:
        kept = [other for other in kept if not other.settings.keys() & change.settings.keys()]
        kept.append(change)
    costs = [change.cost for change in kept if change.cost != NO_COST] or [NO_COST]
    return Change(
        settings={key: value for change in kept for key, value in change.settings.items()},
        line="; ".join(change.line for change in kept),
        cost="; ".join(costs),
        is_last_resort=any(change.is_last_resort for change in kept),
    )


def changes(pipeline: Pipeline, settings: Settings) -> Iterator[Change]:
    """Yield the changes that these settings leave open, cheapest first."""
    if pipeline.runtime in GGML_RUNTIMES:
        single = list(_ggml_changes(pipeline, settings))
        yield from single
        smaller = [change for change in single if "gpu_layers" not in change.settings]
        yield from (combine(smaller[:count]) for count in range(2, len(smaller) + 1))
        return
    yield from _free_changes(settings)
    yield from _decoding_changes(pipeline, settings)
    yield from _dtype_changes(pipeline, settings)
    yield from _smaller_batches(settings)
    if settings.get("safety_checker") == "on":
        yield Change(
            settings={"safety_checker": "off"},
            line="safety_checker=None",
            cost="images are no longer checked",
        )
    if settings.get("offload") == "none":
        yield Change(
            settings={"offload": "model"},
            line="pipe.enable_model_cpu_offload()",
            cost="components wait in system memory and move for every image",
        )
    if settings.get("offload") in ("none", "model"):
        yield Change(
            settings={"offload": "sequential"},
            line="pipe.enable_sequential_cpu_offload()",
            cost="every layer moves for every step: many times slower",
            is_last_resort=True,
        )


def _free_changes(settings: Settings) -> Iterator[Change]:
    if settings.get("attention") in ("math", "sliced"):
        yield Change(
            settings={"attention": "sdpa"},
            line="leave attention at its default (fused kernels)",
            cost=NO_COST,
        )
    # torch has no expandable segments on Windows: c10/cuda/CUDACachingAllocator.cpp
    if settings.get("expandable_segments") == "off" and settings.get("platform") != "windows":
        yield Change(
            settings={"expandable_segments": "on"},
            line="PYTORCH_ALLOC_CONF=expandable_segments:True",
            cost=NO_COST,
        )


def _decoding_changes(pipeline: Pipeline, settings: Settings) -> Iterator[Change]:
    vae = "pipe.vae" if len(pipeline.components) > 1 else "vae"
    batch = settings.get("batch", 1)
    if isinstance(batch, int) and batch > 1 and settings.get("vae_slicing") == "off":
        yield Change(
            settings={"vae_slicing": "on"},
            line=f"{vae}.enable_slicing()",
            cost="images are decoded one by one",
        )
    if settings.get("vae_tiling") == "off":
        yield Change(
            settings={"vae_tiling": "on"},
            line=f"{vae}.enable_tiling()",
            cost="a slower decode; seams are blended and may show in smooth areas",
        )


def _dtype_changes(pipeline: Pipeline, settings: Settings) -> Iterator[Change]:
    model = "pipe" if len(pipeline.components) > 1 else "model"
    if settings.get("dtype") == "fp32" and settings.get("mode") != "train":
        yield Change(
            settings={"dtype": "fp16"},
            line=f"{model}.to(torch.float16)",
            cost="half precision; faster on every card since Volta",
        )
    # SDXL's pipeline casts such a VAE to fp32 before it decodes, in fp16 only
    upcasts = any(spec.config.get("force_upcast") is True for spec in pipeline.components)
    if settings.get("dtype") == "fp16" and upcasts:
        yield Change(
            settings={"dtype": "bf16"},
            line=f"{model}.to(torch.bfloat16)",
            cost="slow on cards before Ampere (compute capability 8.0)",
        )


def _smaller_batches(settings: Settings) -> Iterator[Change]:
    batch = settings.get("batch", 1)
    while isinstance(batch, int) and batch > 1:
        batch //= 2
        yield Change(
            settings={"batch": batch},
            line=f"a batch of {batch}",
            cost="more runs for as many results",
        )


def _ggml_changes(pipeline: Pipeline, settings: Settings) -> Iterator[Change]:
    is_ollama = pipeline.runtime == "ollama"
    yield from _window_changes(settings)
    if settings.get("kv_type") == "f16" and settings.get("flash_attention") != "off":
        yield Change(
            settings={"kv_type": "q8_0"},
            line="OLLAMA_KV_CACHE_TYPE=q8_0" if is_ollama else "-ctk q8_0 -ctv q8_0",
            cost="a KV cache of half the size, with little loss",
        )
    ubatch = settings.get("ubatch")
    if isinstance(ubatch, int) and ubatch > 128:
        yield Change(
            settings={"ubatch": 128},
            line='"num_batch": 128 in the request\'s options' if is_ollama else "-ub 128",
            cost="prompts are read more slowly",
        )
    context = settings.get("context")
    while isinstance(context, int) and context > 2048:
        context //= 2
        yield Change(
            settings={"context": context},
            line=f"OLLAMA_CONTEXT_LENGTH={context}" if is_ollama else f"-c {context}",
            cost=f"the conversation and its images must fit {context} tokens",
        )
    yield from _expert_changes(pipeline, settings)
    if settings.get("gpu_layers", "auto") != "auto":
        yield Change(
            settings={"gpu_layers": "auto"},
            line="no num_gpu in the request's options" if is_ollama else "no -ngl",
            cost="layers that do not fit run on the CPU",
        )


def _window_changes(settings: Settings) -> Iterator[Change]:
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
            line="-np 1",
            cost="requests wait for one another",
        )


def _expert_changes(pipeline: Pipeline, settings: Settings) -> Iterator[Change]:
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
        if isinstance(now, int) and count > now:
            # llama-server reads LLAMA_ARG_*, and Ollama starts it with its own environment
            is_ollama = pipeline.runtime == "ollama"
            yield Change(
                settings={"cpu_moe": count},
                line=f"LLAMA_ARG_N_CPU_MOE={count}" if is_ollama else f"--n-cpu-moe {count}",
                cost=f"the experts of {count} of {layers} layers are computed on the CPU",
            )
