#!/usr/bin/env bash
# diffusers: a cache that skips steps may hold a result of each block, more than a video model's weights.
#
# Guess: what a step leaves for the next is the denoiser's result, or a residual of its size.
# Seen:  that is what FirstBlockCache does: three hidden states in all. PyramidAttentionBroadcast holds one for each
#        attention that it is asked to skip: for Wan 14B (1280 x 720, 81 frames) 40 of 738 MiB, 28.8 GiB, more than its
#        weights. TaylorSeer holds two for each, 3.0 GiB for FLUX.1 at 1024 x 1024, twice as many where two passes are told
#        apart; and none for Wan, whose attentions are called attn1 and attn2: it hooks nothing there, and says nothing.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q torch==2.13.0 transformers==5.23.0 diffusers==0.42.1
cat > "$folder/see.py" <<'PYTHON'
import gc
from importlib.metadata import version

import torch
from diffusers import (
    FirstBlockCacheConfig, FluxTransformer2DModel, PyramidAttentionBroadcastConfig, TaylorSeerCacheConfig,
    WanTransformer3DModel,
)

HALF, WIDE, STEPS = torch.bfloat16, 64, 4
print(*(f"{name} {version(name)}" for name in ("torch", "diffusers")))


def flux():
    model = FluxTransformer2DModel(
        in_channels=4, num_layers=2, num_single_layers=4, attention_head_dim=32, num_attention_heads=2,
        joint_attention_dim=32, pooled_projection_dim=32, axes_dims_rope=(8, 12, 12),
    )
    given = {
        "hidden_states": torch.ones(1, 200, 4), "encoder_hidden_states": torch.ones(1, 40, 32),
        "pooled_projections": torch.ones(1, 32), "timestep": torch.tensor([0.5]),
        "img_ids": torch.zeros(200, 3), "txt_ids": torch.zeros(40, 3),
    }
    return model, {name: one if "ids" in name else one.to(HALF) for name, one in given.items()}, 240


def wan():
    model = WanTransformer3DModel(
        num_attention_heads=2, attention_head_dim=32, in_channels=4, out_channels=4, text_dim=32, freq_dim=32,
        ffn_dim=64, num_layers=4, rope_max_seq_len=64,
    )
    given = {
        "hidden_states": torch.ones(1, 4, 3, 16, 20, dtype=HALF), "timestep": torch.tensor([500]),
        "encoder_hidden_states": torch.ones(1, 8, 32, dtype=HALF),
    }
    return model, given, 3 * 8 * 10


def held(build, settings, passes):
    """Return the bytes of new tensors that outlive some steps with a cache, in hidden states of the model."""
    model, given, tokens = build()
    model.to(HALF).eval().enable_cache(settings)
    gc.collect()
    before = {one.untyped_storage()._cdata for one in gc.get_objects() if type(one) in (torch.Tensor, torch.nn.Parameter)}
    with torch.no_grad():
        for _ in range(STEPS):
            for name in passes:
                with model.cache_context(name):
                    model(**given)
    gc.collect()
    after = {
        one.untyped_storage()._cdata: one.untyped_storage().nbytes()
        for one in gc.get_objects() if type(one) in (torch.Tensor, torch.nn.Parameter)
    }
    return sum(size for which, size in after.items() if which not in before) / (tokens * WIDE * 2)


ONE, TWO = ("all",), ("conditional", "unconditional")
BROADCAST = {"spatial_attention_block_skip_range": 2, "current_timestep_callback": lambda: 500}
WAYS = {
    "FirstBlockCache": (lambda: FirstBlockCacheConfig(threshold=0.1), ONE),
    "PyramidAttentionBroadcast": (lambda: PyramidAttentionBroadcastConfig(**BROADCAST), ONE),
    "TaylorSeer": (TaylorSeerCacheConfig, ONE), "TaylorSeer, two passes": (TaylorSeerCacheConfig, TWO),
}
for name, build, *expected in (("FLUX.1, 6 blocks", flux, 3, 6, 12, 24), ("Wan, 4 blocks", wan, 3, 4, 0, 0)):
    for (way, (settings, passes)), many in zip(WAYS.items(), expected, strict=True):
        found = held(build, settings(), passes)
        print(f"{name}, {way}: {found:.1f} hidden states held")
        assert abs(found - many) < 0.3
PYTHON
"$folder/venv/bin/python" "$folder/see.py" 2> "$folder/said" || { cat "$folder/said" >&2; exit 1; }
