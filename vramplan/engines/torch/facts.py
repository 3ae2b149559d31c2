"""What settings mean to the code that runs: numbers it works with and words it branches on.

A tape chooses among its recordings by them, and a recipe runs the real code by them.
"""

from __future__ import annotations

from vramplan.engines.torch.attention_kernel import attention_kernel
from vramplan.engines.torch.pipeline import TorchPipeline
from vramplan.model import Settings


def numbers_at(settings: Settings) -> dict[str, int]:
    """Return the settings that are whole numbers; an image is its width and its height."""
    numbers = {name: value for name, value in settings.items() if isinstance(value, int)}
    image = settings.get("image")
    if isinstance(image, tuple):
        numbers["width"], numbers["height"] = image
    return numbers


def facts_at(
    pipeline: TorchPipeline, settings: Settings, compute_capability: str
) -> dict[str, str]:
    """Return the words that choose among the ways the code may run on an architecture."""
    dtype = str(settings.get("dtype", "fp32"))
    attention = str(settings.get("attention", "sdpa"))
    # without SDPA diffusers changes the UNet's and the VAE's processors, not the text encoder's
    asked = "sdpa" if pipeline.runtime == "diffusers" else attention
    kernel = attention_kernel(compute_capability, asked, dtype)
    facts = {name: value for name, value in settings.items() if isinstance(value, str)}
    facts["kernel"] = kernel
    facts["unet_kernel"] = {"math": "plain", "sliced": "sliced"}.get(attention, kernel)
    # the VAE's one head of 512 is too large for flash and cuDNN
    facts["vae_kernel"] = "plain" if attention == "math" else "efficient"
    facts["guided"] = "1" if _guidance(settings) > 1 else "0"
    is_img2img = facts.get("mode") == "img2img"
    facts["encode_slicing"] = facts.get("vae_slicing", "off") if is_img2img else "off"
    # what a pipeline without the setting does
    for name, plain in (
        ("mode", "txt2img"),
        ("vae_tiling", "off"),
        ("vae_slicing", "off"),
        ("safety_checker", "off"),
    ):
        facts.setdefault(name, plain)
    return facts


def _guidance(settings: Settings) -> float:
    value = settings.get("guidance", 0)
    return value if isinstance(value, (int, float)) else 0
