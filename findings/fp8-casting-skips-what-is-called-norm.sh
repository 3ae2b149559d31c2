#!/usr/bin/env bash
# diffusers: fp8 weights by enable_layerwise_casting leave a quarter or a third of some transformers in bfloat16.
#
# Guess: all linear layers are kept in fp8, and norms, whose weights are next to nothing, are not.
# Seen:  what stays is chosen by name. In FLUX.1, SD 3, AuraFlow and HunyuanVideo the large linear layers
#        that compute shifts and scales live inside modules called norm, and stay: 3.25 of FLUX.1's
#        11.9 billion parameters, so 14.1 GiB instead of 11.1. Qwen-Image's are called img_mod and
#        txt_mod, and 0.1 % stays.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q torch==2.13.0 transformers==5.23.0 diffusers==0.42.1
cat > "$folder/see.py" <<'PYTHON'
from importlib.metadata import version

import diffusers
import torch

print(*(f"{name} {version(name)}" for name in ("torch", "diffusers")))
FP8 = torch.float8_e4m3fn
for name, settings, expected in (
    ("FluxTransformer2DModel", {"guidance_embeds": True}, 0.273),  # FLUX.1 dev
    (
        "SD3Transformer2DModel",  # SD 3 medium
        {
            "sample_size": 128, "num_layers": 24, "num_attention_heads": 24,
            "caption_projection_dim": 1536, "pos_embed_max_size": 192,
        },
        0.333,
    ),
    ("AuraFlowTransformer2DModel", {}, 0.335),
    ("HunyuanVideoTransformer3DModel", {}, 0.291),
    ("QwenImageTransformer2DModel", {}, 0.001),
    ("UNet2DConditionModel", {"cross_attention_dim": 768}, 0.0),
):
    with torch.device("meta"):
        model = getattr(diffusers, name)(**settings).to(torch.bfloat16)
    model.enable_layerwise_casting(storage_dtype=FP8, compute_dtype=torch.bfloat16)
    whole = sum(one.numel() for one in model.parameters())
    stay = {key: one.numel() for key, one in model.named_parameters() if one.dtype is not FP8}
    share = sum(stay.values()) / whole
    called_norm = sum(many for key, many in stay.items() if ".linear." in key and "norm" in key)
    print(f"{name}: {whole:,} parameters, {share:.1%} stay in bfloat16,",
          f"{called_norm / whole:.1%} in linear layers of a norm;",
          f"{sum(one.nbytes for one in model.parameters()) / 2**30:.2f} GiB")
    assert abs(share - expected) < 0.001, share
    assert expected < 0.1 or called_norm > 0.9 * share * whole
PYTHON
"$folder/venv/bin/python" "$folder/see.py" 2> "$folder/said" || { cat "$folder/said" >&2; exit 1; }
