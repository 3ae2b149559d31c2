#!/usr/bin/env bash
# diffusers: fuse_qkv_projections() makes a model larger, and unfusing a UNet does not make it smaller again.
#
# Guess: the fused matrix takes the place of the three that it is made of.
# Seen:  it stands beside them: FLUX.1 grows by 18 %, 4 GiB in bfloat16, the UNet of SDXL by 25 %. After
#        unfuse_qkv_projections() FLUX.1 is what it was; the UNets keep the fused matrices, which nothing uses.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q torch==2.13.0 transformers==5.23.0 diffusers==0.42.1
cat > "$folder/see.py" <<'PYTHON'
from importlib.metadata import version

import torch
from diffusers import FluxTransformer2DModel, UNet2DConditionModel

print(*(f"{name} {version(name)}" for name in ("torch", "diffusers")))
SDXL = {
    "sample_size": 128, "block_out_channels": (320, 640, 1280), "cross_attention_dim": 2048,
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    "transformer_layers_per_block": (1, 2, 10), "attention_head_dim": (5, 10, 20), "use_linear_projection": True,
    "addition_embed_type": "text_time", "addition_time_embed_dim": 256, "projection_class_embeddings_input_dim": 2816,
}
with torch.device("meta"):
    flux = FluxTransformer2DModel(guidance_embeds=True).to(torch.bfloat16)
    sdxl = UNet2DConditionModel(**SDXL).to(torch.bfloat16)
    sd15 = UNet2DConditionModel(cross_attention_dim=768).to(torch.bfloat16)


def size(model):
    return sum(one.nbytes for one in model.parameters())


for name, model, low, stays in (("FLUX.1", flux, 1.17, False), ("SDXL", sdxl, 1.25, True), ("SD 1.5", sd15, 1.06, True)):
    before = size(model)
    with torch.device("meta"):
        model.fuse_qkv_projections()
        fused = size(model)
        model.unfuse_qkv_projections()
    after = size(model)
    print(f"{name}: {before / 2**20:,.0f} MiB, fused {fused / before:.3f} times as much, unfused {after / before:.3f}")
    assert fused > low * before and (after == fused if stays else after == before)
PYTHON
"$folder/venv/bin/python" "$folder/see.py" 2> "$folder/said" || { cat "$folder/said" >&2; exit 1; }
