#!/usr/bin/env bash
# diffusers: group offload "block_level", one block at a time, brings a T5 encoder to the device whole.
#
# Guess: enable_group_offload(offload_type="block_level", num_blocks_per_group=1) moves one transformer
#        block of every component at a time, so that the largest block is what is on the device.
# Seen:  blocks are looked for in lists that are the model's own children. A T5 encoder's are one level
#        deeper, and so is what holds a CLIP's: all of it is one group. At the shapes of FLUX.1's T5
#        8.9 GiB arrive at once; of its transformer one block does. "leaf_level" moves layers of all three.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q torch==2.13.0 transformers==5.23.0 diffusers==0.42.1 accelerate==1.15.0
cat > "$folder/see.py" <<'PYTHON'
from importlib.metadata import version

import torch
from diffusers import FluxTransformer2DModel
from diffusers.hooks import apply_group_offloading
from transformers import CLIPTextConfig, CLIPTextModel, T5Config, T5EncoderModel

print(*(f"{name} {version(name)}" for name in ("torch", "transformers", "diffusers")))
CPU = torch.device("cpu")


def flux():
    return FluxTransformer2DModel(
        num_layers=4, num_single_layers=8, attention_head_dim=32, num_attention_heads=4,
        in_channels=16, joint_attention_dim=64, pooled_projection_dim=32, axes_dims_rope=(8, 12, 12),
    )


def t5():
    return T5EncoderModel(T5Config(vocab_size=64, d_model=128, d_ff=256, d_kv=32, num_layers=12, num_heads=4))


def clip():
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=64, hidden_size=128, intermediate_size=256, num_hidden_layers=12,
            num_attention_heads=4, projection_dim=32,
        )
    )


def largest_group(model, kind, **how):
    """Return the share of a model's parameters that one of its groups moves at once."""
    apply_group_offloading(model, onload_device=CPU, offload_type=kind, **how)
    groups = {
        id(hook.group): hook.group
        for module in model.modules()
        if hasattr(module, "_diffusers_hook")
        for hook in module._diffusers_hook.hooks.values()
        if hasattr(hook, "group")
    }
    sizes = []
    for group in groups.values():
        parts = {id(one): one for inner in group.modules for one in inner.parameters()}
        parts |= {id(one): one for one in group.parameters}
        sizes.append(sum(one.numel() for one in parts.values()))
    return max(sizes) / sum(one.numel() for one in model.parameters())


for make, expected in ((flux, 0.15), (t5, 1.0), (clip, 1.0)):
    block = largest_group(make(), "block_level", num_blocks_per_group=1)
    leaf = largest_group(make(), "leaf_level")
    print(f"{make.__name__}: the largest group has {block:.1%} of the model by blocks, {leaf:.1%} by layers")
    assert block > 0.95 if expected == 1.0 else block < expected
    assert leaf < 0.15
PYTHON
"$folder/venv/bin/python" "$folder/see.py" 2> "$folder/said" || { cat "$folder/said" >&2; exit 1; }
