#!/usr/bin/env bash
# diffusers: PixArt computes images at a size of its own table, whatever is asked.
#
# Guess: 512x512 from a checkpoint of 1024 takes a quarter of the tokens, and 2048x2048 four times as many.
# Seen:  both take those of 1024x1024: use_resolution_binning is on by default, the asked size only chooses the
#        row of a table by its aspect ratio, and the picture is scaled afterwards. So asking for less does not
#        help an out of memory (16 times the attention scores where they are stored), and asking for more
#        costs nothing. Sana, Hunyuan-DiT and PRX have the same default. Latents are not scaled back.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q torch==2.13.0 transformers==5.23.0 diffusers==0.42.1
cat > "$folder/see.py" <<'PYTHON'
import inspect
from importlib.metadata import version

import diffusers
import torch
from diffusers import AutoencoderKL, DDIMScheduler, PixArtSigmaPipeline, PixArtTransformer2DModel

print(*(f"{name} {version(name)}" for name in ("torch", "diffusers")))
BLOCKS = 4
transformer = PixArtTransformer2DModel(  # sample_size is that of the checkpoints for 1024x1024
    sample_size=128, num_layers=1, num_attention_heads=1, attention_head_dim=8, in_channels=4, out_channels=8,
    cross_attention_dim=8, caption_channels=8, use_additional_conditions=False,
)
vae = AutoencoderKL(
    block_out_channels=(4,) * BLOCKS, down_block_types=("DownEncoderBlock2D",) * BLOCKS,
    up_block_types=("UpDecoderBlock2D",) * BLOCKS, norm_num_groups=2, mid_block_add_attention=False,
)
pipe = PixArtSigmaPipeline(
    tokenizer=None, text_encoder=None, vae=vae, transformer=transformer, scheduler=DDIMScheduler()
)
pipe.set_progress_bar_config(disable=True)
seen = []
transformer.register_forward_pre_hook(lambda part, args: seen.append(tuple(args[0].shape[2:])))
prompt = {
    "prompt": None, "prompt_embeds": torch.zeros(1, 4, 8), "prompt_attention_mask": torch.ones(1, 4),
    "negative_prompt": None, "guidance_scale": 1.0,
}
for size, how, expected in (
    ((512, 512), {}, (128, 128)),
    ((1024, 1024), {}, (128, 128)),
    ((2048, 2048), {}, (128, 128)),
    ((512, 1024), {}, (88, 176)),
    ((512, 512), {"use_resolution_binning": False}, (64, 64)),
):
    pipe(height=size[0], width=size[1], num_inference_steps=1, output_type="latent", **prompt, **how)
    latent = seen.pop()
    print(f"asked {size} {how or ''}: latents of {latent}, pixels {tuple(8 * side for side in latent)}")
    assert latent == expected
for name in ("PixArtAlphaPipeline", "SanaPipeline", "SanaVideoPipeline", "HunyuanDiTPipeline", "PRXPipeline"):
    default = inspect.signature(getattr(diffusers, name).__call__).parameters["use_resolution_binning"].default
    print(name, "by default:", default)
    assert default is True
PYTHON
"$folder/venv/bin/python" "$folder/see.py" 2> "$folder/said" || { cat "$folder/said" >&2; exit 1; }
