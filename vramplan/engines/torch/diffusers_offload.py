"""How diffusers moves the components of a pipeline: the names it gives them, and their order."""

from __future__ import annotations

#: what no offload moves. Source: StableDiffusionPipeline._exclude_from_cpu_offload
STAYS_ON_DEVICE = frozenset({"safety_checker"})

#: how Stable Diffusion and SDXL hand the GPU on. Source: their `model_cpu_offload_seq`
CHAIN = ("text_encoder", "text_encoder_2", "unet", "vae")
