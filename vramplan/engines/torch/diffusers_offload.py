"""How diffusers moves the components of a pipeline: the names it gives them, and their order."""

from __future__ import annotations

#: what no offload moves. Source: StableDiffusionPipeline._exclude_from_cpu_offload
STAYS_ON_DEVICE = frozenset({"safety_checker"})

#: what pipelines call the part that denoises, and the one of convolutions among them
UNET = "unet"
DENOISERS = ("transformer", "transformer_2", UNET, "prior")

#: and the part that makes images of what was denoised
DECODER = "vae"

#: how pipelines hand the GPU on, of which each has some. Source: `model_cpu_offload_seq` of Stable
#: Diffusion to 3.5, SDXL, SVD, FLUX, Wan, LTX-2, Qwen-Image and Z-Image
CHAIN = (
    *("text_encoder", "text_encoder_2", "text_encoder_3", "image_encoder", "connectors"),
    *("unet", "transformer", "transformer_2", "vae", "audio_vae", "vocoder"),
)
