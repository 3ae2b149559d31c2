"""LLaVA under Transformers: an image and a prompt through the model's own `generate()`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch

from vramplan.engines.torch.pipeline import TorchPipeline
from vramplan.engines.torch.record.assemble import Grammar
from vramplan.engines.torch.record.classes import build_module
from vramplan.engines.torch.record.layouts import META
from vramplan.engines.torch.record.marks import Marks
from vramplan.engines.torch.record.session import BF16_AS_FP16, DTYPES, Facts, Recipe, Sample
from vramplan.engines.torch.record.stage import Stage

Value = Any

PARTS = {
    "vision_encoder": "model.vision_tower",
    "projector": "model.multi_modal_projector",
    "language_model": "model.language_model",
    "lm_head": "lm_head",
}

#: batch, prompt tokens without the image's, new tokens: few enough ids to keep their values
_SETTINGS = ((1, 30, 4), (1, 61, 6), (1, 97, 4), (2, 40, 4), (3, 25, 6), (5, 83, 4))
#: the first, the second to last and the last token are special
LEAST_TOKENS = 4


def recipe(pipeline: TorchPipeline) -> Recipe:
    """Return the recipe of a LLaVA model of the catalogue."""
    (spec,) = pipeline.components

    def build(facts: Facts) -> Mapping[str, torch.nn.Module]:
        return {spec.name: build_module(spec, DTYPES[facts["dtype"]])}

    def run(stage: Stage, sample: Sample) -> Callable[[], None]:
        model: Value = stage.modules[spec.name]
        if stage.is_new:
            _mark(stage.marks, model)
        return lambda: _generate(stage, model, sample)

    with META:
        config = build_module(spec, torch.float16).config
    return Recipe(
        dims={"n": "batch", "p": "prompt_tokens", "new": "new_tokens"},
        grammars={"main": _grammar(config)},
        relevant={"main": ("dtype", "kernel")},
        sessions=_sessions(),
        build=build,
        run=run,
        element_bytes=lambda facts: DTYPES[facts["dtype"]].itemsize,
        parts={spec.name: PARTS},
        marks_modules=False,
        least={"new_tokens": LEAST_TOKENS},
        dtype_facts=BF16_AS_FP16,
    )


def image_tokens(config: Value) -> int:
    """Return how many tokens an image becomes: one for each patch."""
    vision = config.vision_config
    return int((vision.image_size // vision.patch_size) ** 2)


def _grammar(config: Value) -> Grammar:
    layers, vision_layers = (
        part.num_hidden_layers for part in (config.text_config, config.vision_config)
    )
    return Grammar(
        # `asked` tokens come in, `seen` are in the cache when the token under way has been added
        derived={"asked": f"p+{image_tokens(config)}", "seen": "asked+generate+1"},
        products=("n", "asked", "seen", "n*asked", "n*seen", "asked*asked", "n*asked*asked"),
        counts={"generate": "new-1", "layer": str(layers), "vision_layer": str(vision_layers)},
    )


def _sessions() -> list[tuple[Facts, list[Sample]]]:
    """Every kernel for every element size; bf16 makes the same events as fp16."""
    kernels = {"fp16": ("flash", "efficient", "cudnn", "math"), "fp32": ("efficient", "math")}
    sessions: list[tuple[Facts, list[Sample]]] = []
    for dtype, names in kernels.items():
        for kernel in names:
            facts = {"dtype": dtype, "kernel": kernel}
            sessions.append(
                (facts, [Sample(numbers=_numbers(*setting), facts=facts) for setting in _SETTINGS])
            )
    return sessions


def _numbers(batch: int, prompt_tokens: int, new_tokens: int) -> dict[str, int]:
    return {"batch": batch, "prompt_tokens": prompt_tokens, "new_tokens": new_tokens}


# ------------------------------------------------------------------------------ running
def _generate(stage: Stage, model: Value, sample: Sample) -> None:
    """What a user writes: inputs to the GPU, then `generate`."""
    config, numbers, target = model.config, sample.numbers, stage.target
    batch, image, side = numbers["batch"], image_tokens(config), config.vision_config.image_size
    ids = torch.full((batch, numbers["prompt_tokens"] + image), config.image_token_id)
    ids[:, image:] = 0
    stage.marks.begin_phase("encode_image", "vision_encoder")
    inputs = {
        "input_ids": ids.to(target),
        "attention_mask": torch.ones_like(ids).to(target),
        "pixel_values": torch.zeros(batch, 3, side, side).to(target, DTYPES[sample.facts["dtype"]]),
    }
    # greedy decoding of made-up tokens never meets the end token, so all the new tokens are made
    model.generate(**inputs, max_new_tokens=numbers["new_tokens"], do_sample=False)


def _mark(marks: Marks, model: Value) -> None:
    """Mark phases, layers and tokens: the KV cache makes every pass depend on the one before."""
    tower, projector, language = (
        model.get_submodule(PARTS[part])
        for part in ("vision_encoder", "projector", "language_model")
    )
    _mark_layers(marks, "vision_layer", tower.encoder.layers, tower.post_layernorm)
    _mark_layers(marks, "layer", language.layers, language.norm)
    projector.register_forward_pre_hook(lambda *_: marks.begin_phase("encode_image", "projector"))

    def begin_pass(_: Value, __: Value, kwargs: dict[str, Value]) -> None:
        if kwargs["inputs_embeds"].shape[1] > 1:
            marks.begin_phase("prefill", "language_model")
        else:
            marks.iterate("generate")
            marks.begin_phase("generate", "language_model")

    def end_pass(*_: Value) -> None:
        phase = "generate" if marks.stream.open_loops else "prefill"
        marks.begin_phase(phase, "lm_head")

    language.register_forward_pre_hook(begin_pass, with_kwargs=True)
    language.register_forward_hook(end_pass)


def _mark_layers(
    marks: Marks, loop: str, layers: Iterable[torch.nn.Module], after: torch.nn.Module
) -> None:
    """Make a loop of `layers`; module `after` comes behind the last one."""

    def begin_layer(*_: Value) -> None:
        marks.iterate(loop)

    def end_layers(*_: Value) -> None:
        if loop in marks.stream.open_loops:
            marks.end_loop()

    for layer in layers:
        layer.register_forward_pre_hook(begin_layer)
    after.register_forward_pre_hook(end_layers)
