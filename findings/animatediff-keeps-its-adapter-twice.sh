#!/usr/bin/env bash
# diffusers: AnimateDiff keeps its motion adapter on the GPU twice, once where nothing reads it.
#
# Guess: pipe.to("cuda") moves Stable Diffusion's UNet, and beside it the adapter whose layers it is run with.
# Seen:  the pipeline copies both into one UNetMotionModel when it is made, and registers the adapter beside it
#        all the same; to() and offloading move it too. 453 million parameters, 906 MB in fp16, that no step
#        reads. `pipe.motion_adapter.to("cpu")` afterwards gives them back.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q torch==2.13.0 transformers==5.23.0 diffusers==0.42.1
cat > "$folder/see.py" <<'PYTHON'
from importlib.metadata import version

import torch
from diffusers import AnimateDiffPipeline, AutoencoderKL, DDIMScheduler, MotionAdapter, UNet2DConditionModel

print(*(f"{name} {version(name)}" for name in ("torch", "diffusers")))
WIDTHS = (8, 8)
unet = UNet2DConditionModel(
    sample_size=8, block_out_channels=WIDTHS, layers_per_block=1, cross_attention_dim=8, attention_head_dim=4,
    norm_num_groups=2, down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
    up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
)
adapter = MotionAdapter(
    block_out_channels=WIDTHS, motion_layers_per_block=1, motion_norm_num_groups=2, motion_num_attention_heads=2,
    use_motion_mid_block=False,
)
vae = AutoencoderKL(norm_num_groups=1, block_out_channels=(4,))
pipe = AnimateDiffPipeline(
    vae=vae, text_encoder=None, tokenizer=None, unet=unet, motion_adapter=adapter, scheduler=DDIMScheduler()
)


def count(module: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


parts = {"the image UNet": count(unet), "the adapter": count(adapter), "pipe.unet": count(pipe.unet)}
print(*(f"{name}: {number:,}" for name, number in parts.items()), sep="\n")
assert parts["pipe.unet"] == parts["the image UNet"] + parts["the adapter"]
moved = [name for name, part in pipe.components.items() if isinstance(part, torch.nn.Module)]
print("what pipe.to() moves:", *moved)
assert "motion_adapter" in moved
kept = {one.data_ptr() for one in pipe.unet.parameters()} & {one.data_ptr() for one in adapter.parameters()}
print("tensors that both share:", len(kept))
assert not kept
with torch.device("meta"):  # guoyww/animatediff-motion-adapter-v1-5-2: Stable Diffusion 1.5's widths
    full = count(MotionAdapter())
print(f"Stable Diffusion 1.5's adapter: {full:,} parameters, a second time {2 * full / 1e6:.0f} MB in fp16")
assert full == 453_209_280
PYTHON
"$folder/venv/bin/python" "$folder/see.py" 2> "$folder/said" || { cat "$folder/said" >&2; exit 1; }
