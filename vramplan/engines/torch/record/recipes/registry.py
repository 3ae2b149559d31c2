"""Which recipe runs a pipeline of the catalogue: its components' classes decide."""

from __future__ import annotations

from vramplan.engines.torch.pipeline import TorchPipeline
from vramplan.engines.torch.record.session import Recipe
from vramplan.errors import UsageError


def find_recipe(pipeline: TorchPipeline) -> Recipe | None:
    """Return how `pipeline` is built and run for a recording, or None.

    An entry that names the class whose code is its run, or says the parameters of a lone model's,
    needs no recipe.
    """
    from vramplan.engines.torch.record.recipes import autoencoders, diffusion, llava, vae, vit_mae

    classes = {spec.class_path for spec in pipeline.components}
    if pipeline.class_path is not None or pipeline.counted is not None:
        return None
    if "diffusers.UNet2DConditionModel" in classes:
        return diffusion.recipe(pipeline)
    if classes == {"diffusers.AutoencoderKL"}:
        return vae.recipe(pipeline)
    if classes == {"transformers.LlavaForConditionalGeneration"}:
        return llava.recipe(pipeline)
    if classes == {"transformers.ViTMAEForPreTraining"}:
        return vit_mae.recipe(pipeline)
    if classes == {"torch.nn.Sequential"}:
        return autoencoders.recipe(pipeline)
    return None


def recipe_for(pipeline: TorchPipeline) -> Recipe:
    """Return how `pipeline` is built and run for a recording.

    Raises UsageError where no recipe knows its components' classes.
    """
    recipe = find_recipe(pipeline)
    if recipe is None:
        classes = {spec.class_path for spec in pipeline.components}
        shown = ", ".join(sorted(classes)) or "a pipeline without components"
        raise UsageError(
            f"{pipeline.name}: no recipe knows how to run {shown}",
            hint="recorded are UNet2DConditionModel and AutoencoderKL (diffusers), "
            "LlavaForConditionalGeneration and ViTMAEForPreTraining (transformers), "
            "and autoencoders of torch.nn.Sequential",
        )
    return recipe
