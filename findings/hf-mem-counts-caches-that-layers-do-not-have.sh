#!/usr/bin/env bash
# hf-mem: the cache that --experimental counts is 28 times DeepSeek V3's, and four times Qwen3-Next's.
#
# Guess: it follows the config, where it says which layers attend (layer_types) and how narrow a latent is (kv_lora_rank).
# Seen:  a layer that is not full attention is taken for one with a window, and those, beside full ones, are counted in
#        full: so are the recurrent layers of Qwen3-Next (3 of 4) and the convolutions of LFM2 (10 of 16), which keep
#        nothing a token. A latent is not looked at: DeepSeek V3's 128 heads are counted at the width of their rotary
#        part, which transformers writes as head_dim, 16,384 numbers a token and layer where its cache holds 576.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q torch==2.13.0 transformers==5.23.0 hf-mem==0.5.6
cat > "$folder/see.py" <<'PYTHON'
from importlib.metadata import version

import torch
import transformers
from hf_mem.safetensors.kv_cache import compute_safetensors_kv_cache_size

TOKENS = 256
print(*(f"{name} {version(name)}" for name in ("torch", "transformers", "hf-mem")))
ANY = {"vocab_size": 64, "intermediate_size": 64, "pad_token_id": None}
MIXTURE = {"moe_intermediate_size": 32, "num_experts_per_tok": 2}
KINDS = {  # heads, widths of heads and latents, and kinds of layers as published, all else small
    "Llama": ({"hidden_size": 256, "num_attention_heads": 4, "num_key_value_heads": 2, "num_hidden_layers": 2}, 1),
    "DeepseekV3": (
        {**MIXTURE, "hidden_size": 7168, "num_attention_heads": 128, "num_key_value_heads": 128, "q_lora_rank": 32,
         "kv_lora_rank": 512, "qk_rope_head_dim": 64, "qk_nope_head_dim": 128, "v_head_dim": 128,
         "num_hidden_layers": 1, "first_k_dense_replace": 1, "n_routed_experts": 4, "n_group": 1, "topk_group": 1},
        2 * 128 * 64 / 576,
    ),
    "Qwen3Next": (
        {**MIXTURE, "hidden_size": 256, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 256,
         "num_hidden_layers": 8, "num_experts": 4, "linear_num_value_heads": 4, "linear_num_key_heads": 2,
         "shared_expert_intermediate_size": 32}, 4,
    ),
    "Lfm2": (
        {"hidden_size": 256, "num_attention_heads": 4, "num_key_value_heads": 1, "num_hidden_layers": 16,
         "layer_types": ["full_attention" if layer in (2, 5, 8, 10, 12, 14) else "conv" for layer in range(16)]},
        16 / 6,
    ),
}
for name, (settings, times) in KINDS.items():
    config = getattr(transformers, f"{name}Config")(**{**ANY, **settings})
    with torch.device("meta"):
        model = getattr(transformers, f"{name}ForCausalLM")(config).to(torch.bfloat16).eval()
    model.to_empty(device="cpu")
    with torch.no_grad():
        cache = model(torch.zeros(1, TOKENS, dtype=torch.long), use_cache=True).past_key_values
    held = sum(
        one.nbytes for layer in cache.layers for one in (getattr(layer, "keys", None), getattr(layer, "values", None))
        if one is not None
    )
    said = compute_safetensors_kv_cache_size(config.to_dict(), "BF16", TOKENS)
    print(f"{name}: {held / TOKENS:,.0f} bytes of keys and values a token, hf-mem says {said / TOKENS:,.0f},",
          f"{said / held:.1f} times as many")
    assert abs(said / held - times) < 0.01
PYTHON
"$folder/venv/bin/python" "$folder/see.py" 2> "$folder/said" || { cat "$folder/said" >&2; exit 1; }
