"""Autoencoders whose config says less, or other things, than Stable Diffusion's."""

from __future__ import annotations

from dataclasses import replace

import pytest

pytest.importorskip("torch")
pytest.importorskip("diffusers")

import diffusers

from vramplan.engines.torch.pipeline import TorchPipeline
from vramplan.engines.torch.record.proof import prove
from vramplan.engines.torch.record.recipes import vae
from vramplan.engines.torch.record.recorder import record_tape
from vramplan.engines.torch.record.session import Recipe
from vramplan.model import ComponentSpec


def spec_of(levels: int, **more: object) -> ComponentSpec:
    config: dict[str, object] = {
        "block_out_channels": [64] * levels,
        "layers_per_block": 1,
        "latent_channels": 4,
        "down_block_types": ["DownEncoderBlock2D"] * levels,
        "up_block_types": ["UpDecoderBlock2D"] * levels,
        **more,
    }
    return ComponentSpec(name="vae", class_path="diffusers.AutoencoderKL", config=config)


@pytest.mark.parametrize(
    ("levels", "more"),
    [(4, {}), (3, {}), (4, {"sample_size": 512}), (2, {"sample_size": 256}),
     (4, {"sample_size": [64, 64]})],
)  # fmt: skip
def test_tiles_and_latents_are_those_of_diffusers_own_class(
    levels: int, more: dict[str, object]
) -> None:
    spec = spec_of(levels, **more)
    real = diffusers.AutoencoderKL(**spec.config)
    assert vae.tile_side(spec) == real.tile_latent_min_size
    assert vae.pixels_a_latent(spec) == 2 ** (len(real.config.block_out_channels) - 1)


def test_a_config_that_says_nothing_has_one_level() -> None:
    spec = ComponentSpec(name="vae", class_path="diffusers.AutoencoderKL", config={})
    real = diffusers.AutoencoderKL()
    assert vae.tile_side(spec) == real.tile_latent_min_size == 32


@pytest.mark.parametrize("tiling", ["off", "on"])
def test_a_tape_of_three_levels_and_no_sample_size_is_exact_at_other_sizes(tiling: str) -> None:
    pipeline = TorchPipeline(
        name="small-vae", title="", summary="", runtime="diffusers", defaults={}, source="",
        path="", constraints={}, components=(spec_of(3),),
    )  # fmt: skip
    whole = vae.recipe(pipeline)
    facts, samples = whole.sessions[0]
    kept = [s for s in samples if s.facts["vae_tiling"] == tiling and s.facts["mode"] == "both"]
    recipe: Recipe = replace(whole, sessions=[(facts, kept)])
    tape = record_tape("small-vae", recipe)
    for numbers in (
        {"batch": 1, "height": 92, "width": 76},
        {"batch": 3, "height": 44, "width": 100},
    ):
        prove(tape, recipe, replace(kept[0], numbers=numbers))
