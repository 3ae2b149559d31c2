#!/usr/bin/env bash
# transformers: with multi-head latent attention the cache is small, and each new token unpacks all of it.
#
# Guess: the cache holds one latent for all heads (512 + 64 numbers a token and layer for DeepSeek V3), and attention
#        reads that: 61 layers of 32,768 tokens take 2.1 GiB in bfloat16, and that is what a long context costs.
# Seen:  the cache is that small. But each layer makes keys and values of all heads from it, for the whole
#        context at every token: a layer's latents become 448 numbers a head, with 128 heads a hundred times as many,
#        and more than the cache of all 61 layers: another 3.5 GiB of scratch.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q torch==2.13.0 transformers==5.23.0
cat > "$folder/see.py" <<'PYTHON'
from importlib.metadata import version

import torch
import transformers

TOKENS, HEADS = 512, 32
print(*(f"{name} {version(name)}" for name in ("torch", "transformers")))
plain = torch.nn.functional.scaled_dot_product_attention
read = {}


def watched(query, key, value, *args, **kwargs):
    """Note the bytes behind keys and values, then attend."""
    for one in (key, value):
        read[one.untyped_storage()._cdata] = one.untyped_storage().nbytes()
    return plain(query, key, value, *args, **kwargs)


SHAPE = {
    "vocab_size": 64, "hidden_size": 256, "intermediate_size": 256, "num_hidden_layers": 1, "kv_lora_rank": 512,
    "num_attention_heads": HEADS, "num_key_value_heads": HEADS, "q_lora_rank": 128, "qk_nope_head_dim": 128,
    "qk_rope_head_dim": 64, "v_head_dim": 128,
}
MIXTURE = {"moe_intermediate_size": 64, "n_routed_experts": 4, "num_experts_per_tok": 2, "n_group": 1, "topk_group": 1}
for name, settings in {
    "DeepseekV3": {**MIXTURE, "first_k_dense_replace": 1}, "DeepseekV2": {**MIXTURE, "first_k_dense_replace": 1},
    "MiniCPM3": {}, "Youtu": {},
}.items():
    config = getattr(transformers, f"{name}Config")(**SHAPE, **settings)
    model = getattr(transformers, f"{name}ForCausalLM")(config).to(torch.bfloat16).eval()
    with torch.no_grad():
        cache = model(torch.ones(1, TOKENS, dtype=torch.long), use_cache=True).past_key_values
        read.clear()
        torch.nn.functional.scaled_dot_product_attention = watched
        model(torch.ones(1, 1, dtype=torch.long), past_key_values=cache)
        torch.nn.functional.scaled_dot_product_attention = plain
    held = sum(one.nbytes for one in (cache.layers[0].keys, cache.layers[0].values)) / 2 / (TOKENS + 1)
    made = sum(read.values()) / 2 / (TOKENS + 1)
    print(f"{name}: {held:.0f} numbers a token in the cache, {made:.0f} made for a new one: {made / HEADS:.0f} a head")
    assert held == 512 + 64
    assert made == HEADS * (128 + 64 + 128 + 128)  # keys, and values in one matrix with the keys they were made with
cache, scratch = (numbers * 2 * 32_768 / 2**30 for numbers in (61 * (512 + 64), 128 * 448))
print(f"DeepSeek V3, 32,768 tokens: {cache:.1f} GiB in the cache, {scratch:.1f} made at every token")
PYTHON
"$folder/venv/bin/python" "$folder/see.py" 2> "$folder/said" || { cat "$folder/said" >&2; exit 1; }
