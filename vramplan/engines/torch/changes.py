"""The changes that a torch pipeline's settings leave open, in the line of Python that is typed."""

from __future__ import annotations

from collections.abc import Iterator

from vramplan.budget.change import NO_COST, Change
from vramplan.engines.torch.pipeline import TorchPipeline
from vramplan.model import Settings


def changes(pipeline: TorchPipeline, settings: Settings) -> Iterator[Change]:
    """Yield the changes that these settings leave open, cheapest first."""
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
    if settings.get("offload") in ("none", "model") and pipeline.counted is None:
        yield Change(
            settings={"offload": "sequential"},
            line="pipe.enable_sequential_cpu_offload()",
            cost="every layer moves for every step: many times slower",
            is_last_resort=True,
        )


def _free_changes(settings: Settings) -> Iterator[Change]:
    if settings.get("device_map") == "auto":
        yield Change(
            settings={"device_map": "cuda"},
            line='device_map="cuda"',
            cost="runs out of memory, instead of using the CPU, should it not fit after all",
        )
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


def _decoding_changes(pipeline: TorchPipeline, settings: Settings) -> Iterator[Change]:
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


def _dtype_changes(pipeline: TorchPipeline, settings: Settings) -> Iterator[Change]:
    model = "pipe" if len(pipeline.components) > 1 else "model"
    if settings.get("dtype") == "fp32" and settings.get("mode") != "train":
        yield Change(
            settings={"dtype": "fp16"},
            line=f"{model}.to(torch.float16)",
            cost="half precision; faster on every card since Volta",
        )
    # SDXL's pipeline casts such a VAE to fp32 before it decodes, in fp16 only
    casts = settings.get("vae_upcast") != "off"
    upcasts = any(spec.config.get("force_upcast") is True for spec in pipeline.components)
    if settings.get("dtype") == "fp16" and settings.get("vae_upcast") == "on":
        yield Change(
            settings={"vae_upcast": "off"},
            line='vae=AutoencoderKL.from_pretrained("madebyollin/sdxl-vae-fp16-fix", '
            "torch_dtype=torch.float16)",
            cost="another VAE, finetuned so that fp16 does not overflow: images differ slightly",
        )
    if settings.get("dtype") == "fp16" and upcasts and casts:
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
