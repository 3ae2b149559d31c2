#!/usr/bin/env bash
# diffusers: an image that is not square costs HiDream as much as the largest square.
#
# Guess: 512x480 takes a little less than 512x512, as with every other denoiser.
# Seen:  the transformer computes a square image in its own number of tokens, and any other padded to
#        max_resolution squared: 4,096 tokens for HiDream-I1, those of 1024x1024. So cutting a few pixels off
#        a 512x512 image takes four times its tokens, sixteen times the attention scores where they are stored.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q torch==2.13.0 transformers==5.23.0 diffusers==0.42.1
cat > "$folder/see.py" <<'PYTHON'
from importlib.metadata import version

import torch
from diffusers import HiDreamImageTransformer2DModel

print(*(f"{name} {version(name)}" for name in ("torch", "diffusers")))
SIDE = 32  # of the largest latent; 128 in the checkpoints, which is 1024 pixels
model = HiDreamImageTransformer2DModel(
    patch_size=2, in_channels=4, out_channels=4, num_layers=1, num_single_layers=1, attention_head_dim=8,
    num_attention_heads=2, caption_channels=[8, 8], text_emb_dim=8, num_routed_experts=2,
    num_activated_experts=1, axes_dims_rope=(4, 2, 2), max_resolution=(SIDE, SIDE), llama_layers=[0, 0],
)
seen = []
model.x_embedder.register_forward_hook(lambda part, given, made: seen.append(made.shape[1]))
for height, width, tokens in ((32, 32, 256), (16, 16, 64), (16, 14, 256), (8, 32, 256)):
    model(
        hidden_states=torch.zeros(1, 4, height, width), timesteps=torch.zeros(1),
        encoder_hidden_states_t5=torch.zeros(1, 4, 8), encoder_hidden_states_llama3=torch.zeros(1, 1, 4, 8),
        pooled_embeds=torch.zeros(1, 8),
    )
    found = seen.pop()
    print(f"a latent of {height}x{width}: {found} image tokens, {height * width // 4} patches")
    assert found == tokens
PYTHON
"$folder/venv/bin/python" "$folder/see.py" 2> "$folder/said" || { cat "$folder/said" >&2; exit 1; }
