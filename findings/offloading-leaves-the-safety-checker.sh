#!/usr/bin/env bash
# diffusers: offloaded layer by layer, Stable Diffusion still keeps its safety checker on the device whole.
#
# Guess: with enable_sequential_cpu_offload() every component is in host memory, and comes layer by layer.
# Seen:  what a pipeline's class lists in _exclude_from_cpu_offload is moved to the device whole, for good: the safety
#        checker in the pipelines of Stable Diffusion 1.x (304 million parameters, 580 MiB in float16, where the
#        UNet's largest layer has 56), the prior in Kandinsky's (a billion), the image encoder of PaintByExample.
#        enable_model_cpu_offload() leaves the safety checker there, too, beside the UNet.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q torch==2.13.0 transformers==5.23.0 accelerate==1.15.0 diffusers==0.42.1
cat > "$folder/see.py" <<'PYTHON'
from importlib.metadata import version

import torch
from diffusers import (
    AutoencoderKL, DDIMScheduler, KandinskyPriorPipeline, StableDiffusionPipeline, UNet2DConditionModel,
)
from diffusers.pipelines.stable_diffusion import StableDiffusionSafetyChecker
from transformers import CLIPConfig, CLIPImageProcessor, CLIPTextConfig, CLIPTextModel

print(*(f"{name} {version(name)}" for name in ("torch", "accelerate", "diffusers")))
DEVICE = torch.device("cpu:0")  # it stands for a GPU: its number tells it from the host's "cpu"


def pipeline():
    text = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    vision = {**text, "image_size": 32, "patch_size": 16}
    return StableDiffusionPipeline(
        vae=AutoencoderKL(norm_num_groups=1, block_out_channels=(4,)), tokenizer=None,
        feature_extractor=CLIPImageProcessor(),
        text_encoder=CLIPTextModel(CLIPTextConfig(vocab_size=64, **text)),
        unet=UNet2DConditionModel(
            block_out_channels=(32,), down_block_types=("CrossAttnDownBlock2D",), cross_attention_dim=32,
            up_block_types=("CrossAttnUpBlock2D",),
        ),
        scheduler=DDIMScheduler(), requires_safety_checker=False,
        safety_checker=StableDiffusionSafetyChecker(CLIPConfig(text_config=text, vision_config=vision)),
    )


for way in ("enable_sequential_cpu_offload", "enable_model_cpu_offload"):
    made, moved = pipeline(), {}
    parts = {name: one for name, one in made.components.items() if isinstance(one, torch.nn.Module)}
    for name, one in parts.items():
        moved[name] = []
        one.to = lambda *to, one=one, seen=moved[name], **kwargs: seen.extend(map(str, to)) or one
    getattr(made, way)(device=DEVICE)
    whole = {name for name, seen in moved.items() if str(DEVICE) in seen}
    hooked = {name for name, one in parts.items() if any(hasattr(layer, "_hf_hook") for layer in one.modules())}
    print(f"{way}: moved whole {sorted(whole)}, brought when called {sorted(hooked)}")
    assert whole == {"safety_checker"} and hooked == {"unet", "vae", "text_encoder"}
assert KandinskyPriorPipeline._exclude_from_cpu_offload == ["prior"]

with torch.device("meta"):  # the sizes that Stable Diffusion 1.5 is published with
    vision = {
        "hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24, "num_attention_heads": 16,
        "patch_size": 14,
    }
    checker = StableDiffusionSafetyChecker(CLIPConfig(vision_config=vision, projection_dim=768))
    unet = UNet2DConditionModel(cross_attention_dim=768)
many = sum(one.numel() for one in checker.parameters())
largest = max(one.numel() for one in unet.parameters())
print(f"{many:,} parameters, {many * 2 / 2**20:,.0f} MiB in float16; the UNet's largest {largest * 2 / 2**20:,.0f} MiB")
assert 303e6 < many < 305e6 and many > 10 * largest
PYTHON
"$folder/venv/bin/python" "$folder/see.py" 2> "$folder/said" || { cat "$folder/said" >&2; exit 1; }
