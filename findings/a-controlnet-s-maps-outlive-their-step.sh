#!/usr/bin/env bash
# diffusers: a ControlNet's maps are alive while the next ones are made, and while the picture is decoded.
#
# Guess: what a ControlNet hands to the UNet goes with the UNet's call.
# Seen:  the pipeline keeps them by name until it writes over them: at each step the ControlNet runs beside the maps of
#        the step before, and the VAE decodes beside those of the last. For one image of SDXL, 1024x1024 with guidance,
#        they are 102 MiB in half precision, twice that at each step; of SD 1.5 at 512x512 26 MiB.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q torch==2.13.0 diffusers==0.42.1 transformers==5.23.0
cat > "$folder/see.py" <<'PYTHON'
import weakref
from importlib.metadata import version

import torch
from diffusers import (
    AutoencoderKL, ControlNetModel, DDIMScheduler, StableDiffusionControlNetPipeline, UNet2DConditionModel,
)

print(*(f"{name} {version(name)}" for name in ("torch", "diffusers")))
STEPS = 3
small = dict(
    block_out_channels=(32, 64), layers_per_block=2, down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
    cross_attention_dim=32, norm_num_groups=8,
)
unet = UNet2DConditionModel(sample_size=8, up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"), **small)
controlnet = ControlNetModel(conditioning_embedding_out_channels=(16, 32), **small)
vae = AutoencoderKL(
    block_out_channels=(32, 64), down_block_types=["DownEncoderBlock2D"] * 2, up_block_types=["UpDecoderBlock2D"] * 2,
    latent_channels=4, norm_num_groups=8,
)
pipe = StableDiffusionControlNetPipeline(
    vae=vae, text_encoder=None, tokenizer=None, unet=unet, controlnet=controlnet, scheduler=DDIMScheduler(),
    safety_checker=None, feature_extractor=None, requires_safety_checker=False,
)
pipe.set_progress_bar_config(disable=True)
made, alive = [], []


def see(where):
    alive.append([sum(one() is not None for one in step) for step in made])
    print(f"{where}: of the maps of each step before, alive are {alive[-1]}")


def control(*args, forward=controlnet.forward, **options):
    see(f"before step {len(made) + 1}")
    maps = forward(*args, **options)
    made.append([weakref.ref(one.untyped_storage()) for one in (*maps[0], maps[1])])
    return maps


def decode(*args, before=vae.decode, **options):
    see("at the VAE")
    return before(*args, **options)


controlnet.forward, vae.decode = control, decode
words = torch.zeros(1, 77, 32)
pipe(
    prompt_embeds=words, negative_prompt_embeds=words, image=torch.zeros(1, 3, 64, 64), num_inference_steps=STEPS,
    height=64, width=64, output_type="pt",
)
many = len(made[0])
assert alive == [[], [many], [0, many], [0, 0, many]]
TEXT = dict(addition_embed_type="text_time", addition_time_embed_dim=256, projection_class_embeddings_input_dim=2816)
XL = dict(
    block_out_channels=(320, 640, 1280), down_block_types=("DownBlock2D", *["CrossAttnDownBlock2D"] * 2),
    cross_attention_dim=2048, transformer_layers_per_block=(1, 2, 10), attention_head_dim=(5, 10, 20),
    use_linear_projection=True, **TEXT,
)
for name, side, config in (("SD 1.5", 512, {"cross_attention_dim": 768}), ("SDXL", 1024, XL)):
    with torch.device("meta"):
        real, wide = ControlNetModel(**config).half(), config["cross_attention_dim"]
        added = {"text_embeds": torch.empty(2, 1280).half(), "time_ids": torch.empty(2, 6).half()}
        maps = real(
            torch.empty(2, 4, side // 8, side // 8).half(), torch.tensor(1.0), torch.empty(2, 77, wide).half(),
            torch.empty(2, 3, side, side).half(), added_cond_kwargs=added, return_dict=False,
        )
    size = sum(one.nbytes for one in (*maps[0], maps[1])) / 2**20
    print(f"{name}, {side}x{side} with guidance: {size:.1f} MiB in {len(maps[0]) + 1} maps")
    assert int(size) == (102 if name == "SDXL" else 25)
PYTHON
"$folder/venv/bin/python" "$folder/see.py" 2> "$folder/said" || { cat "$folder/said" >&2; exit 1; }
