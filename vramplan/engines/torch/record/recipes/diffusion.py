"""Stable Diffusion and SDXL, text or image to image, through diffusers' own `__call__`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from vramplan.engines.torch.pipeline import TorchPipeline
from vramplan.engines.torch.record.assemble import Grammar
from vramplan.engines.torch.record.classes import build_module, build_object
from vramplan.engines.torch.record.recipes.vae import (
    VAE_PARTS,
    VAE_RELEVANT,
    WIDTHS,
    pixels_a_latent,
    run_halves,
    set_tiling,
    tile_side,
    tiled_sides,
    vae_dims,
    vae_grammars,
    vae_sample,
    wrap_vae,
)
from vramplan.engines.torch.record.session import DTYPES, Facts, Recipe, Sample
from vramplan.engines.torch.record.stage import Stage
from vramplan.errors import RecordingError
from vramplan.quick_dataclass import replace

Value = Any
Side = tuple[int, int, int]  # latent height, width, batch

#: settings used to find sizes: odd levels, sides that are no multiples of 64, several batches
_SIDES = ((64, 64, 1), (65, 81, 2), (72, 57, 3), (50, 90, 1), (43, 75, 1), (59, 46, 5))
_STEPS = (10, 11, 10, 12, 10, 10)
#: PNDM has settled into its loop after this many steps, image to image included
LEAST_STEPS = 8

_LEVELS = {f"{side}{k}": f"-(-{side}//{2**k})" for k in (1, 2, 3) for side in "hw"}
_AREAS = ("h*w", "h1*w1", "h2*w2", "h3*w3")

UNET = Grammar(
    derived=_LEVELS,
    products=(
        "n",
        *_AREAS,
        *(f"n*{a}" for a in _AREAS),
        *(f"n*{a}*{a}" for a in _AREAS),
        *(f"{a}*{a}" for a in _AREAS),
    ),
    counts={"attention_slice": "2*n"},
)


VAE_WIDTHS = {"16": torch.float16, "32": torch.float32}


def shape_dims(sample: torch.Tensor, *_: Value, **__: Value) -> dict[str, int]:
    """Return batch, height and width of an NCHW tensor as a routine's dimensions."""
    return {"n": sample.shape[0], "h": sample.shape[2], "w": sample.shape[3]}


class Words:
    """Stands for a tokenizer: memory depends on how many tokens there are, not on which."""

    model_max_length = 77
    all_special_ids: tuple[int, ...] = ()
    added_tokens_encoder: Mapping[str, int] = {}

    def __call__(self, text: str | Sequence[str], **_: Value) -> Value:
        """Return as many token ids as the model takes, for each text."""
        from transformers import BatchEncoding

        count = 1 if isinstance(text, str) else len(text)
        ids = torch.full((count, self.model_max_length), 49407)
        return BatchEncoding({"input_ids": ids, "attention_mask": torch.ones_like(ids)})

    def tokenize(self, text: str) -> list[str]:
        """Return the text as one token."""
        return [text]

    def batch_decode(self, *_: Value) -> list[str]:
        """Return nothing: no text was cut off."""
        return []


class Pixels:
    """Stands for the safety checker's image processor: the crop's size is all that matters."""

    def __call__(self, images: Sequence[Value], **_: Value) -> Value:
        """Return the checker's input for each image."""
        from transformers import BatchFeature

        return BatchFeature({"pixel_values": torch.zeros(len(images), 3, 224, 224)})


def recipe(pipeline: TorchPipeline) -> Recipe:
    """Return the recipe of a Stable Diffusion pipeline of the catalogue."""
    names = [spec.name for spec in pipeline.components]
    is_xl = "text_encoder_2" in names
    has_checker = "safety_checker" in names
    modes = pipeline.constraints["mode"].choices if "mode" in pipeline.constraints else ("txt2img",)

    vae = next(spec for spec in pipeline.components if spec.name == "vae")
    tile, scale = tile_side(vae), pixels_a_latent(vae)

    def build(facts: Facts) -> Mapping[str, torch.nn.Module]:
        return {
            spec.name: build_module(spec, DTYPES[facts["dtype"]]) for spec in pipeline.components
        }

    return Recipe(
        dims={**vae_dims(vae), "steps": "steps"},
        grammars={
            "main": main_grammar(pipeline.scheduler.class_path if pipeline.scheduler else ""),
            "unet": UNET,
            "text_encoder": TEXT,
            "text_encoder_2": TEXT,
            "safety_checker": TEXT,
            **vae_grammars(vae),
        },
        relevant=_RELEVANT,
        sessions=_sessions(modes, has_checker, is_xl, tiled_sides(tile), scale),
        build=build,
        run=lambda stage, sample: _run(pipeline, stage, sample),
        element_bytes=lambda facts: DTYPES[facts["dtype"]].itemsize,
        parts={"vae": VAE_PARTS},
        least={"steps": LEAST_STEPS},
        dtype_facts=XL_WIDTHS if is_xl else WIDTHS,
    )


def main_grammar(scheduler: str) -> Grammar:
    """Return the grammar of the pipeline's own code; PNDM repeats its second step."""
    calls = "steps+(steps>1)" if scheduler.endswith("PNDMScheduler") else "steps"
    return Grammar(
        products=("n", "n*h*w", "steps", "h*w"),
        derived={"kept": "steps-(steps*4)//5"},
        counts={
            "denoise": calls,
            "denoise_image": f"{calls}-kept",
            "encode_slice": "n",
            "finished_image": "n",
        },
    )


TEXT = Grammar(products=("n",))

_RELEVANT = {
    "main": ("dtype", "mode", "guided", "safety_checker", "encode_slicing"),
    "unet": ("width", "unet_kernel"),
    "text_encoder": ("width", "kernel"),
    "text_encoder_2": ("width", "kernel"),
    "safety_checker": ("width", "kernel"),
    **VAE_RELEVANT,
}

#: SDXL in fp16 casts its VAE to fp32 before it decodes (force_upcast), in bf16 it does not
XL_WIDTHS = {
    **WIDTHS,
    "fp16": {**WIDTHS["fp16"], "vae_width": "32"},
    "bf16": {**WIDTHS["bf16"], "dtype": "bf16"},
}


def _sessions(
    modes: Sequence[str], has_checker: bool, is_xl: bool, sides: Sequence[Side], scale: int
) -> list[tuple[Facts, list[Sample]]]:
    """Every kernel for every element size; the pipeline's own glue once a dtype that changes it."""
    sessions: list[tuple[Facts, list[Sample]]] = []
    for dtype in ("fp16", "bf16", "fp32") if is_xl else ("fp16", "fp32"):
        widths = (XL_WIDTHS if is_xl else WIDTHS)[dtype]
        kernels = ("efficient",) if dtype == "fp32" else ("flash", "efficient", "cudnn", "math")
        for kernel in kernels:
            # the VAE's one head of 512 is too large for flash and cuDNN
            vae_kernel = "math" if kernel == "math" else "efficient"
            facts = {**widths, "kernel": kernel, "unet_kernel": kernel, "vae_kernel": vae_kernel}
            if kernel == kernels[0]:
                samples = _every(facts, modes, has_checker, sides, scale)
            elif dtype == "bf16":
                samples = _halves(facts, ("off",), sides, scale)
            else:
                samples = _plain(facts, scale) + _halves(facts, ("off",), sides, scale)
            sessions.append((facts, samples))
        for unet_kernel in ("plain",) if is_xl else ("plain", "sliced"):
            vae_kernel = "plain" if unet_kernel == "plain" else "efficient"
            facts = {
                **widths, "kernel": kernels[0], "unet_kernel": unet_kernel, "vae_kernel":
                vae_kernel,
            }  # fmt: skip
            plain = [] if dtype == "bf16" else _plain(facts, scale)
            halves = _halves(facts, ("off",), sides, scale) if vae_kernel == "plain" else []
            sessions.append((facts, plain + halves))
    return sessions


def _halves(
    facts: Facts, tilings: Sequence[str], sides: Sequence[Side], scale: int
) -> list[Sample]:
    """Return runs of the VAE alone: only its routines are kept."""
    samples = [
        vae_sample(facts, side, "vae", tiling, slicing, scale)
        for tiling in tilings
        for slicing in (("off", "on") if tiling == "on" else ("off",))
        for side in sides
    ]
    return [
        replace(s, numbers={**s.numbers, "steps": LEAST_STEPS}, keep_main=False) for s in samples
    ]


def _sample(facts: Facts, place: int, scale: int, **more: str) -> Sample:
    h, w, n = _SIDES[place]
    plain = {
        "mode": "txt2img",
        "guided": "1",
        "safety_checker": "on",
        "vae_tiling": "off",
        "vae_slicing": "off",
    }
    numbers = {"batch": n, "height": scale * h, "width": scale * w, "steps": _STEPS[place]}
    full = {**plain, **facts, **more}
    full["encode_slicing"] = full["vae_slicing"] if full["mode"] == "img2img" else "off"
    return Sample(numbers=numbers, facts=full)


def _plain(facts: Facts, scale: int) -> list[Sample]:
    return [_sample(facts, place, scale) for place in range(len(_SIDES))]


def _every(
    facts: Facts, modes: Sequence[str], has_checker: bool, sides: Sequence[Side], scale: int
) -> list[Sample]:
    """Every variant of the glue at every size; the components themselves are remembered."""
    checkers = ("on", "off") if has_checker else ("off",)
    samples = [
        _sample(
            facts,
            place,
            scale,
            mode=mode,
            guided=guided,
            safety_checker=checker,
            vae_slicing=slicing,
        )
        for mode in modes
        for guided in ("1", "0")
        for checker in checkers
        for slicing in (("off", "on") if mode == "img2img" else ("off",))
        for place in range(len(_SIDES))
    ]
    samples += [_sample(facts, place, scale, vae_slicing="on") for place in range(len(_SIDES))]
    return samples + _halves(facts, ("on",), sides, scale)


# ------------------------------------------------------------------------------ running
def _run(pipeline: TorchPipeline, stage: Stage, sample: Sample) -> Callable[[], None]:
    numbers, facts = sample.numbers, sample.facts
    if facts["mode"] == "vae":
        _wrap(stage, sample)
        stage.cast(stage.modules["vae"], VAE_WIDTHS[facts["vae_width"]])
        width = VAE_WIDTHS[facts["vae_width"]]
        halves = ("encode", "decode")
        return lambda: run_halves(stage.modules["vae"], numbers, width, halves, stage.target)
    pipe = _pipe(pipeline, stage, sample)
    arguments: dict[str, Value] = {
        "num_inference_steps": numbers["steps"],
        "guidance_scale": 7.5 if facts["guided"] == "1" else 1.0,
        "output_type": "pil",
    }
    if facts["mode"] == "img2img":
        image = torch.zeros(numbers["batch"], 3, numbers["height"], numbers["width"])
        arguments |= {"image": image, "strength": 0.8}
    else:
        arguments |= {"height": numbers["height"], "width": numbers["width"]}
    prompts = ["a prompt"] * numbers["batch"]

    def work() -> None:
        stage.marks.begin_phase("encode_prompt")
        pipe(prompts, **arguments)

    return work


def _pipe(pipeline: TorchPipeline, stage: Stage, sample: Sample) -> Value:
    import diffusers

    modules, facts = stage.modules, sample.facts
    checker = modules.get("safety_checker") if facts["safety_checker"] == "on" else None
    is_xl = "text_encoder_2" in modules
    if pipeline.scheduler is None:
        raise RecordingError(f"{pipeline.name}: a diffusion pipeline needs a scheduler")
    vae: Value = modules["vae"]
    if facts.get("vae_upcast") == "off":  # as a VAE whose config says so
        vae.register_to_config(force_upcast=False)
    parts: dict[str, Value] = {
        "vae": modules["vae"],
        "unet": modules["unet"],
        "text_encoder": modules["text_encoder"],
        "tokenizer": Words(),
        "scheduler": build_object(pipeline.scheduler),
        "feature_extractor": Pixels() if checker else None,
    }  # fmt: skip
    if is_xl:
        parts |= {"text_encoder_2": modules["text_encoder_2"], "tokenizer_2": Words()}
        cls = diffusers.StableDiffusionXLPipeline
        parts |= {"add_watermarker": False}
        del parts["feature_extractor"]
    else:
        img2img = facts["mode"] == "img2img"
        cls = (
            diffusers.StableDiffusionImg2ImgPipeline
            if img2img
            else diffusers.StableDiffusionPipeline
        )
        parts |= {"safety_checker": checker, "requires_safety_checker": checker is not None}
    pipe = cls(**parts)
    pipe.set_progress_bar_config(disable=True)
    stage.place(pipe)
    _wrap(stage, sample)
    mark_images(stage, pipe.image_processor)
    return pipe


def mark_images(stage: Stage, processor: Value) -> None:
    """Mark the loop that takes finished images out of a batch one by one."""
    whole, conditionally = processor.denormalize, processor._denormalize_conditionally

    def one(image: torch.Tensor) -> Value:
        stage.marks.iterate("finished_image", until="aten.stack")
        return whole(image)

    def every(images: torch.Tensor, which: list[bool] | None = None) -> Value:
        processor.denormalize = whole if which is None else one
        return conditionally(images, which)

    processor._denormalize_conditionally = every


def _wrap(stage: Stage, sample: Sample) -> None:
    """Turn the components into routines, once a stage, and set what lives on the modules."""
    modules, marks, routines, facts = (
        stage.modules,
        stage.marks,
        stage.routines,
        sample.facts,
    )
    vae: Value = modules["vae"]
    unet: Value = modules["unet"]
    set_tiling(vae, facts)
    stage.loop = "denoise_image" if facts["mode"] == "img2img" else "denoise"
    if not stage.is_new:
        return

    def step() -> None:
        if stage.loop not in marks.stream.open_loops:
            marks.begin_phase("denoise")
        marks.iterate(stage.loop)

    if facts["unet_kernel"] == "plain":
        unet.set_default_attn_processor()  # no scaled_dot_product_attention: plain matrix products
    if facts["vae_kernel"] == "plain":
        vae.set_default_attn_processor()
    if facts["unet_kernel"] == "sliced":
        unet.set_attention_slice("auto")
        mark_slices(stage, unet)
    unet.forward = routines.wrap("unet", unet.forward, shape_dims, step)
    for name, path in (
        ("text_encoder", ""),
        ("text_encoder_2", ""),
        ("safety_checker", "vision_model"),
    ):
        if name in modules:
            # the checker hands its images through, so only its vision model can be remembered
            module: Value = modules[name].get_submodule(path)
            module.forward = routines.wrap(name, module.forward, _first_dim)
    wrap_vae(stage, vae)
    stage.watch_casts("vae", vae)


def _first_dim(tensor: torch.Tensor, *_: Value, **__: Value) -> dict[str, int]:
    return {"n": tensor.shape[0]}


def mark_slices(stage: Stage, unet: torch.nn.Module) -> None:
    """Mark the loop over attention slices, whose length depends on the batch."""
    from diffusers.models.attention_processor import Attention

    marks = stage.marks
    for module in unet.modules():
        if isinstance(module, Attention):
            scores, merge = module.get_attention_scores, module.batch_to_head_dim

            def sliced(*args: Value, scores: Callable[..., Value] = scores) -> Value:
                marks.iterate("attention_slice")
                return scores(*args)

            def merged(tensor: torch.Tensor, merge: Callable[..., Value] = merge) -> Value:
                marks.end_loops()
                return merge(tensor)

            module.get_attention_scores, module.batch_to_head_dim = sliced, merged
