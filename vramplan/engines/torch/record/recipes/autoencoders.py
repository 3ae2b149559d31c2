"""Autoencoders of torch.nn layers: one pass through encoder and decoder, or training steps."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.nn import functional

from vramplan.engines.torch.pipeline import TorchPipeline
from vramplan.engines.torch.record.assemble import Grammar
from vramplan.engines.torch.record.classes import build_module
from vramplan.engines.torch.record.recipes.training import LEAST_STEPS, STEP_COUNTS, train
from vramplan.engines.torch.record.session import BF16_AS_FP16, DTYPES, Facts, Recipe, Sample
from vramplan.engines.torch.record.stage import Stage
from vramplan.errors import UsageError

Value = Any

#: batch, latent rows and columns, steps: sides of an image are eight times these
_SETTINGS = ((1, 4, 6, 5), (2, 9, 7, 6), (3, 8, 5, 5), (5, 11, 16, 7), (70, 6, 10, 6))


def recipe(pipeline: TorchPipeline) -> Recipe:
    """Return the recipe of a pipeline of two stacks of layers, `encoder` and `decoder`."""
    names = {spec.name for spec in pipeline.components}
    if names != {"encoder", "decoder"}:
        raise UsageError(
            f"{pipeline.name}: an autoencoder of torch.nn layers has an encoder and a decoder",
            hint=f"its components are {', '.join(sorted(names))}",
        )
    has_images = "image" in pipeline.defaults
    dims = {"n": "batch", "h": "height//8", "w": "width//8", "steps": "steps"}
    if not has_images:
        dims = {"n": "batch", "steps": "steps"}

    def run(stage: Stage, sample: Sample) -> Callable[[], None]:
        if stage.is_new:
            _mark(stage)
        work = _train if sample.facts["mode"] == "train" else _infer
        return lambda: work(stage, sample)

    def build(facts: Facts) -> dict[str, torch.nn.Module]:
        built = {
            spec.name: build_module(spec, DTYPES[facts["dtype"]]) for spec in pipeline.components
        }
        first = built["encoder"][0]  # type: ignore[index]  # a Sequential, by the catalogue's class
        if not isinstance(first, torch.nn.Conv2d if has_images else torch.nn.Linear):
            raise UsageError(
                f"{pipeline.name}: its encoder begins with {type(first).__name__}",
                hint="with a setting 'image' it begins with Conv2d, without one with Linear",
            )
        return built

    return Recipe(
        dims=dims,
        grammars={
            "main": Grammar(products=("n", "n*h*w") if has_images else ("n",), counts=STEP_COUNTS)
        },
        relevant={"main": ("dtype", "mode")},
        sessions=_sessions(has_images),
        build=build,
        run=run,
        element_bytes=lambda facts: DTYPES[facts["dtype"]].itemsize,
        is_training=lambda facts: facts["mode"] == "train",
        marks_modules=False,
        least={"steps": LEAST_STEPS},
        dtype_facts=BF16_AS_FP16,
    )


def _sessions(has_images: bool) -> list[tuple[Facts, list[Sample]]]:
    """Both element sizes; bf16 makes the same events as fp16."""
    return [
        (
            {"dtype": dtype},
            [
                Sample(numbers=_numbers(setting, has_images), facts={"dtype": dtype, "mode": mode})
                for mode in ("infer", "train")
                for setting in _SETTINGS
            ],
        )
        for dtype in ("fp32", "fp16")
    ]


def _numbers(setting: tuple[int, int, int, int], has_images: bool) -> dict[str, int]:
    n, h, w, steps = setting
    sides = {"height": 8 * h, "width": 8 * w} if has_images else {}
    return {"batch": n, "steps": steps, **sides}


def _mark(stage: Stage) -> None:
    """Say when the encoder and the decoder begin."""
    marks, suffix = stage.marks, "_image" if _is_image(stage) else ""

    def begin(part: str, word: str) -> Callable[..., None]:
        def hook(*_: Value) -> None:
            marks.begin_phase("train_step" if torch.is_grad_enabled() else word, part)

        return hook

    stage.modules["encoder"].register_forward_pre_hook(begin("encoder", f"encode{suffix}"))
    stage.modules["decoder"].register_forward_pre_hook(begin("decoder", f"decode{suffix}"))


def _is_image(stage: Stage) -> bool:
    return isinstance(stage.modules["encoder"][0], torch.nn.Conv2d)  # type: ignore[index]  # a Sequential, by the catalogue's class


def _batch(stage: Stage, sample: Sample) -> torch.Tensor:
    """Return a batch on the device: images, or rows of features."""
    first: Value = stage.modules["encoder"][0]  # type: ignore[index]  # a Sequential, by the catalogue's class
    numbers = sample.numbers
    sides = (numbers["height"], numbers["width"]) if _is_image(stage) else ()
    channels = first.in_channels if sides else first.in_features
    batch = torch.zeros(numbers["batch"], channels, *sides, dtype=DTYPES[sample.facts["dtype"]])
    return batch.to(stage.target)


def _infer(stage: Stage, sample: Sample) -> None:
    """Rebuild a batch; where it is rows of features, score each row by what was not rebuilt."""
    encoder, decoder = stage.modules["encoder"], stage.modules["decoder"]
    batch = _batch(stage, sample)
    rebuilt = decoder(encoder(batch))
    result = rebuilt if _is_image(stage) else ((rebuilt - batch) ** 2).mean(dim=1)
    result.cpu()


def _train(stage: Stage, sample: Sample) -> None:
    """Learn to rebuild the batch: an image without the noise added to it, or the row as it is."""
    encoder, decoder = stage.modules["encoder"], stage.modules["decoder"]
    is_image = _is_image(stage)

    def load() -> tuple[torch.Tensor, torch.Tensor]:
        clean = _batch(stage, sample)
        return (clean + 0.1 * torch.randn_like(clean), clean) if is_image else (clean, clean)

    train(
        stage.marks,
        [*encoder.parameters(), *decoder.parameters()],
        sample.numbers["steps"],
        load,
        lambda batch: decoder(encoder(batch[0])),
        lambda output, batch: functional.mse_loss(output, batch[1]),
    )
