"""The components' classes choose the recipe."""

from __future__ import annotations

from dataclasses import replace

import pytest

pytest.importorskip("torch")
pytest.importorskip("diffusers")
pytest.importorskip("transformers")

from vramplan.catalog import load_catalog
from vramplan.engines.torch.open import open_entry
from vramplan.engines.torch.pipeline import TorchPipeline
from vramplan.engines.torch.record.recipes.registry import recipe_for
from vramplan.errors import UsageError
from vramplan.model import ComponentSpec

#: what tells the families apart: the dimensions of a run
DIMS = {
    "sd15": {"n", "h", "w", "steps"},
    "sdxl": {"n", "h", "w", "steps"},
    "sd15-vae": {"n", "h", "w"},
    "llava-1.5-7b-hf": {"n", "p", "new"},
    "vit-mae-base": {"n", "steps"},
    "log-anomaly-ae": {"n", "steps"},
    "denoising-ae": {"n", "h", "w", "steps"},
}


def recorded() -> list[TorchPipeline]:
    # an entry may have another's tape: that one's recipe made it
    entries = [one for one in load_catalog().pipelines.values() if one.text("tape") == one.name]
    return [open_entry(entry, ()) for entry in entries]


@pytest.mark.parametrize("pipeline", recorded(), ids=lambda pipeline: pipeline.name)
def test_every_pipeline_with_a_tape_has_a_recipe(pipeline):
    recipe = recipe_for(pipeline)
    assert set(recipe.dims) == DIMS[pipeline.tape]
    assert recipe.sessions
    assert {name for facts, _ in recipe.sessions for name in [facts["dtype"]]} >= {"fp16", "fp32"}


@pytest.mark.parametrize("pipeline", recorded(), ids=lambda pipeline: pipeline.name)
def test_a_recipe_needs_no_number_that_is_not_a_setting(pipeline):
    """What dims are made of comes from settings: numbers, and the image's width and height."""
    numbers = {key for key, value in pipeline.defaults.items() if isinstance(value, int)}
    if "image" in pipeline.defaults:
        numbers |= {"width", "height"}
    recipe = recipe_for(pipeline)
    for facts, samples in recipe.sessions:
        for sample in samples:
            assert set(sample.numbers) <= numbers, facts
            break


@pytest.mark.parametrize(
    "classes",
    [(), ("transformers.BertModel",), ("diffusers.AutoencoderKL", "transformers.CLIPTextModel")],
)
def test_an_unknown_family_is_refused_in_one_line(classes):
    components = tuple(
        ComponentSpec(name=f"part{i}", class_path=path, config={}) for i, path in enumerate(classes)
    )
    stranger = replace(recorded()[0], name="stranger", components=components)
    with pytest.raises(UsageError, match="stranger: no recipe knows how to run") as caught:
        recipe_for(stranger)
    assert "\n" not in str(caught.value)
    assert "UNet2DConditionModel" in (caught.value.hint or "")
