"""ViT-MAE under Transformers: rebuild images from a quarter of their patches, or train."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from vramplan.engines.torch.pipeline import TorchPipeline
from vramplan.engines.torch.record.assemble import Grammar
from vramplan.engines.torch.record.classes import build_module
from vramplan.engines.torch.record.marks import Marks
from vramplan.engines.torch.record.recipes.training import LEAST_STEPS, STEP_COUNTS, train
from vramplan.engines.torch.record.session import BF16_AS_FP16, DTYPES, Facts, Recipe, Sample
from vramplan.engines.torch.record.stage import Stage

Value = Any

PARTS = {"encoder": "vit", "decoder": "decoder"}

#: batch and steps
_SETTINGS = ((1, 3), (1, 4), (1, 5), (2, 3), (3, 4), (5, 3))


def recipe(pipeline: TorchPipeline) -> Recipe:
    """Return the recipe of a ViT-MAE model of the catalogue."""
    (spec,) = pipeline.components

    def run(stage: Stage, sample: Sample) -> Callable[[], None]:
        model: Value = stage.modules[spec.name]
        is_training = sample.facts["mode"] == "train"
        model.train(is_training)
        if stage.is_new:
            _mark(stage.marks, model)
        return lambda: (_train if is_training else _infer)(stage, model, sample)

    return Recipe(
        dims={"n": "batch", "steps": "steps"},
        grammars={"main": Grammar(products=("n",), counts=STEP_COUNTS)},
        relevant={"main": ("dtype", "mode", "kernel")},
        sessions=_sessions(),
        build=lambda facts: {spec.name: build_module(spec, DTYPES[facts["dtype"]])},
        run=run,
        element_bytes=lambda facts: DTYPES[facts["dtype"]].itemsize,
        parts={spec.name: PARTS},
        is_training=lambda facts: facts["mode"] == "train",
        marks_modules=False,
        least={"steps": LEAST_STEPS},
        dtype_facts=BF16_AS_FP16,
    )


def _sessions() -> list[tuple[Facts, list[Sample]]]:
    """Every kernel for every element size; bf16 makes the same events as fp16."""
    kernels = {"fp32": ("efficient", "math"), "fp16": ("flash", "efficient", "cudnn", "math")}
    return [
        (
            {"dtype": dtype, "kernel": kernel},
            [
                Sample(
                    numbers={"batch": batch, "steps": steps},
                    facts={"dtype": dtype, "kernel": kernel, "mode": mode},
                )
                for mode in ("infer", "train")
                for batch, steps in _SETTINGS
            ],
        )
        for dtype, names in kernels.items()
        for kernel in names
    ]


def _mark(marks: Marks, model: Value) -> None:
    """Say when the encoder and the decoder begin."""

    def begin(part: str, word: str) -> Callable[..., None]:
        def hook(*_: Value) -> None:
            marks.begin_phase("train_step" if model.training else word, part)

        return hook

    model.get_submodule(PARTS["encoder"]).register_forward_pre_hook(
        begin("encoder", "encode_image")
    )
    model.get_submodule(PARTS["decoder"]).register_forward_pre_hook(
        begin("decoder", "decode_image")
    )


def _images(stage: Stage, model: Value, sample: Sample) -> torch.Tensor:
    config = model.config
    shape = (sample.numbers["batch"], config.num_channels, config.image_size, config.image_size)
    return torch.zeros(shape).to(stage.target, DTYPES[sample.facts["dtype"]])


def _infer(stage: Stage, model: Value, sample: Sample) -> None:
    output = model(_images(stage, model, sample))
    output.logits.cpu()


def _train(stage: Stage, model: Value, sample: Sample) -> None:
    train(
        stage.marks,
        model.parameters(),
        sample.numbers["steps"],
        lambda: _images(stage, model, sample),
        model,
        lambda output, _: output.loss,
    )
