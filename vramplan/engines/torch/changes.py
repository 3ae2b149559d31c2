"""The changes that a torch pipeline's settings leave open, in the line of Python that is typed."""

from __future__ import annotations

from collections.abc import Iterator

from vramplan.budget.change import LAST_RESORT, LITTLE, MUCH, NO_COST, NOTHING, SOME, Change
from vramplan.engines.torch.another_cache import is_told
from vramplan.engines.torch.changed_weights import mostly_linear
from vramplan.engines.torch.pipeline import TorchPipeline
from vramplan.model import Settings, SettingValue
from vramplan.setting_values import PLACING_MAPS
from vramplan.units import MIB

#: a cache that is worth a change, in bytes
_LARGE_CACHE = 256 * MIB
#: sides of smaller images, in eighths of those asked for
_EIGHTHS = (7, 6, 5, 4)
#: bitsandbytes' ways to quantise, and its own words for them
_WAYS = (("bnb-8bit", "8bit"), ("bnb-4bit", "4bit"))
#: diffusers' kinds of group offload, what each wants to be told, and what it costs
_GROUPS = (
    ("block_level", ", num_blocks_per_group=1", "blocks move for every step: slower"),
    ("leaf_level", "", "every layer moves for every step: many times slower"),
)


def changes(pipeline: TorchPipeline, settings: Settings) -> Iterator[Change]:
    """Yield the changes that these settings leave open, those with a lower price first."""
    yield from _free_changes(settings)
    yield from _decoding_changes(pipeline, settings)
    yield from _dtype_changes(pipeline, settings)
    yield from _quantised(pipeline, settings)
    yield from _caches(pipeline, settings)
    yield from _smaller_batches(settings)
    if settings.get("safety_checker") == "on":
        yield Change(
            settings={"safety_checker": "off"},
            line="safety_checker=None",
            cost="images are no longer checked",
            price=SOME,
        )
    if settings.get("attention") == "sdpa" and _takes(pipeline, "attention", "sliced"):
        yield Change(
            settings={"attention": "sliced"},
            line="pipe.enable_attention_slicing()",
            cost="attention slice by slice, without fused kernels: slower",
            price=SOME,
        )
    yield from _offloads(pipeline, settings)
    yield from _smaller_images(pipeline, settings)


def not_modelled(pipeline: TorchPipeline) -> Iterator[tuple[str, str]]:
    """Yield what else people do for a pipeline like this one, and why it is not tried."""
    is_large = {"offload", "device_map", "new_tokens"} & pipeline.defaults.keys()
    if is_large and "quantization" not in pipeline.defaults:
        yield "weights in 8 or 4 bits", "the layers of its classes are not known"
    elif is_large and not mostly_linear(pipeline):
        yield "weights in 8 or 4 bits", "bitsandbytes' are linear layers, and most of these are not"
    if any(spec.class_path.endswith("ForCausalLM") for spec in pipeline.components):
        yield "a .gguf file of it", "another engine's: vramplan check FILE.gguf judges it"
    if "offload" in pipeline.defaults and not _takes(pipeline, "offload", "group"):
        yield "pipe.enable_group_offload(…)", "the layers of its classes are not known"


def _free_changes(settings: Settings) -> Iterator[Change]:
    if settings.get("device_map") in PLACING_MAPS:
        yield Change(
            settings={"device_map": "cuda"},
            line='device_map="cuda"',
            cost="runs out of memory, instead of using the CPU, should it not fit after all",
            price=NOTHING,
        )
    if settings.get("attention") in ("math", "sliced"):
        yield Change(
            settings={"attention": "sdpa"},
            line="leave attention at its default (fused kernels)",
            cost=NO_COST,
            price=NOTHING,
        )
    # torch has no expandable segments on Windows: c10/cuda/CUDACachingAllocator.cpp
    if settings.get("expandable_segments") == "off" and settings.get("platform") != "windows":
        yield Change(
            settings={"expandable_segments": "on"},
            line="PYTORCH_ALLOC_CONF=expandable_segments:True",
            cost=NO_COST,
            price=NOTHING,
        )


def _decoding_changes(pipeline: TorchPipeline, settings: Settings) -> Iterator[Change]:
    vae = "pipe.vae" if len(pipeline.components) > 1 else "vae"
    batch = settings.get("batch", 1)
    if isinstance(batch, int) and batch > 1 and settings.get("vae_slicing") == "off":
        yield Change(
            settings={"vae_slicing": "on"},
            line=f"{vae}.enable_slicing()",
            cost="images are decoded one by one",
            price=LITTLE,
        )
    if settings.get("vae_tiling") == "off":
        yield Change(
            settings={"vae_tiling": "on"},
            line=f"{vae}.enable_tiling()",
            cost="a slower decode; seams are blended and may show in smooth areas",
            price=LITTLE,
        )


def _dtype_changes(pipeline: TorchPipeline, settings: Settings) -> Iterator[Change]:
    model = "pipe" if len(pipeline.components) > 1 else "model"
    if settings.get("dtype") == "fp32" and settings.get("mode") != "train":
        yield Change(
            settings={"dtype": "fp16"},
            line=f"{model}.to(torch.float16)",
            cost="half precision; faster on every card since Volta",
            price=LITTLE,
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
            price=LITTLE,
        )
    if settings.get("dtype") == "fp16" and upcasts and casts:
        yield Change(
            settings={"dtype": "bf16"},
            line=f"{model}.to(torch.bfloat16)",
            cost="slow on cards before Ampere (compute capability 8.0)",
            price=LITTLE,
        )


def _smaller_batches(settings: Settings) -> Iterator[Change]:
    batch, step = settings.get("batch", 1), 0
    while isinstance(batch, int) and batch > 1:
        batch //= 2
        yield Change(
            settings={"batch": batch},
            line=f"a batch of {batch}",
            cost="more runs for as many results",
            price=SOME + step,
            ladder="batch",
        )
        step += 1


def _offloads(pipeline: TorchPipeline, settings: Settings) -> Iterator[Change]:
    if settings.get("offload") == "none":
        yield Change(
            settings={"offload": "model"},
            line="pipe.enable_model_cpu_offload()",
            cost="components wait in system memory and move for every image",
            price=SOME,
            ladder="offload",
        )
    if _takes(pipeline, "offload", "group") and "offload_type" in pipeline.defaults:
        yield from _grouped(settings)
    is_known = pipeline.counted is None and _takes(pipeline, "offload", "sequential")
    if settings.get("offload") in ("none", "model") and is_known:
        yield Change(
            settings={"offload": "sequential"},
            line="pipe.enable_sequential_cpu_offload()",
            cost="every layer moves for every step: many times slower",
            price=LAST_RESORT,
            ladder="offload",
        )


def _grouped(settings: Settings) -> Iterator[Change]:
    """Yield group offload, whole blocks at a time and then layer by layer."""
    if settings.get("offload") not in ("none", "model"):
        return
    for step, (kind, extra, cost) in enumerate(_GROUPS):
        chosen: dict[str, SettingValue] = {"offload": "group"}
        if kind != settings.get("offload_type"):
            chosen["offload_type"] = kind
        yield Change(
            settings=chosen,
            line='pipe.enable_group_offload(onload_device=torch.device("cuda"), '
            f'offload_type="{kind}"{extra})',
            cost=cost,
            price=MUCH + step,
            # not on that of the others: sequential offload leaves a safety checker on the device
            ladder="group",
        )


def _quantised(pipeline: TorchPipeline, settings: Settings) -> Iterator[Change]:
    """Yield weights in 8 and 4 bits, where layers that are quantised are most of the model."""
    if settings.get("quantization") != "none" or not mostly_linear(pipeline):
        return
    for step, (way, words) in enumerate(_WAYS):
        if pipeline.runtime == "diffusers" and len(pipeline.components) > 1:
            line = (
                "quantization_config=PipelineQuantizationConfig("
                f'quant_backend="bitsandbytes_{words}", quant_kwargs={{"load_in_{words}": True}})'
            )
        else:
            line = f"quantization_config=BitsAndBytesConfig(load_in_{words}=True)"
        yield Change(
            settings={"quantization": way},
            line=line,
            cost=f"weights in {words.replace('bit', ' bits')}: results differ a little, and "
            "bitsandbytes has to be installed",
            price=SOME + step,
            ladder="quantization",
        )


def _caches(pipeline: TorchPipeline, settings: Settings) -> Iterator[Change]:
    """Yield the caches that take less than the growing one, where that one takes much."""
    key = "cache_implementation"
    if not pipeline.cache_layers or is_told(settings):
        return
    from vramplan.engines.torch.held_cache import held

    kinds = (
        (
            "quantized",
            "keys and values in 4 bits: slower, and optimum-quanto has to be installed",
            SOME + 1,
        ),
        ("offloaded", "keys and values move over PCIe for every token: many times slower", MUCH),
    )
    for kind, cost, price in kinds:
        if not _takes(pipeline, key, kind):
            continue
        there = held(pipeline.cache_layers, {**settings, key: kind})["generate"]
        if there.grown < _LARGE_CACHE:
            continue
        yield Change(
            settings={key: kind},
            line=f'model.generate(…, {key}="{kind}")',
            cost=cost,
            price=price,
            ladder=key,
        )


def _smaller_images(pipeline: TorchPipeline, settings: Settings) -> Iterator[Change]:
    """Yield images of the same shape, down to half the sides, that the pipeline takes."""
    image = settings.get("image")
    if not isinstance(image, tuple):
        return
    bounds = pipeline.constraints.get("image")
    step = (bounds.multiple_of if bounds else None) or 1
    least = (bounds.minimum if bounds else None) or step
    seen = {image}
    for place, eighths in enumerate(_EIGHTHS):
        width, height = (side * eighths // 8 // step * step for side in image)
        if min(width, height) < least or (width, height) in seen:
            continue
        seen.add((width, height))
        yield Change(
            settings={"image": (width, height)},
            line=f"width={width}, height={height}",
            cost="a smaller image",
            price=MUCH + place,
            ladder="image",
        )


def _takes(pipeline: TorchPipeline, key: str, word: str) -> bool:
    """Return whether a setting of a pipeline may be `word`, as its entry has it."""
    bounds = pipeline.constraints.get(key)
    return bounds is None or not bounds.choices or word in bounds.choices
