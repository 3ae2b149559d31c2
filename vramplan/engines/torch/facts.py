"""What settings mean to the code that runs: numbers it works with and words it branches on.

A tape chooses among its recordings by them, and a recipe runs the real code by them. Which facts a
pipeline has beside its settings, and with which values, the tape or the recipe says: no name of a
family's part stands here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

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


#: what a component's own choice of kernel is called: ``unet_kernel``
_OWN_KERNEL = "_kernel"

#: a fact's name -> the values it was recorded with, or will be
Known = Mapping[str, Sequence[str]]


def facts_at(
    pipeline: TorchPipeline, settings: Settings, compute_capability: str, known: Known
) -> dict[str, str]:
    """Return the words that choose among the ways the code may run on an architecture.

    `known` are the facts of a tape (`Tape.known_facts`) or of a recipe.
    """
    dtype = str(settings.get("dtype", "fp32"))
    attention = str(settings.get("attention", "sdpa"))
    # without SDPA diffusers changes the processors of UNet and VAE, not the text encoder's
    asked = "sdpa" if pipeline.runtime == "diffusers" else attention
    kernel = attention_kernel(compute_capability, asked, dtype)
    facts = {name: value for name, value in settings.items() if isinstance(value, str)}
    facts.setdefault("dtype", dtype)
    facts["kernel"] = kernel
    facts["guided"] = "1" if _guidance(settings) > 1 else "0"
    is_img2img = facts.get("mode") == "img2img"
    facts["encode_slicing"] = facts.get("vae_slicing", "off") if is_img2img else "off"
    for name, values in known.items():
        if name.endswith(_OWN_KERNEL):
            facts[name] = _own_kernel(attention, kernel, values)
        elif name not in facts and values:  # a setting that this pipeline does not have
            facts[name] = "off" if "off" in values else values[0]
    return facts


def _own_kernel(attention: str, kernel: str, known: Sequence[str]) -> str:
    """Return what a component runs that has processors of its own (diffusers).

    One that takes a single fused kernel on every architecture that has one for its dtype, because
    its head is too large for the others, takes it here too.
    """
    asked = {"math": "plain", "sliced": "sliced"}.get(attention, kernel)
    if asked in known:
        return asked
    if kernel == "math" and kernel in known:
        return kernel
    fused = [value for value in known if value not in ("plain", "sliced", "math")]
    return fused[0] if len(fused) == 1 else asked


def switched_off(components: Mapping[str, object], facts: Mapping[str, str]) -> frozenset[str]:
    """Return the components that are not loaded: a setting of their name says off."""
    return frozenset(name for name in components if facts.get(name) == "off")


def _guidance(settings: Settings) -> float:
    value = settings.get("guidance", 0)
    return value if isinstance(value, (int, float)) else 0
