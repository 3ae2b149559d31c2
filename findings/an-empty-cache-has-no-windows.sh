#!/usr/bin/env bash
# transformers: a DynamicCache() that is handed in has no windows, and five of six layers of Gemma 3 keep everything.
#
# Guess: past_key_values=DynamicCache() is what generate() and a call with use_cache=True make for themselves.
# Seen:  theirs is DynamicCache(config=model.config). Without a config, a layer with a window of n keeps all
#        tokens, and masks them: the same words come out. At the shapes of Gemma 3 4B and 32,768 tokens that is
#        4.25 GiB instead of 0.74. Gpt-oss, half of whose layers have windows, keeps nearly twice as much.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q torch==2.13.0 transformers==5.23.0
cat > "$folder/see.py" <<'PYTHON'
from importlib.metadata import version

import torch
from transformers import DynamicCache, Gemma3ForCausalLM, Gemma3TextConfig, GptOssConfig, GptOssForCausalLM

PROMPT, NEW, WINDOW = 500, 8, 64
print(*(f"{name} {version(name)}" for name in ("torch", "transformers")))
SMALL = {
    "vocab_size": 64, "hidden_size": 64, "intermediate_size": 64, "num_attention_heads": 4,
    "num_key_value_heads": 1, "head_dim": 16, "sliding_window": WINDOW, "pad_token_id": 0,
}
torch.manual_seed(0)
MODELS = {
    "Gemma 3": Gemma3ForCausalLM(Gemma3TextConfig(**SMALL, num_hidden_layers=6)),
    "gpt-oss": GptOssForCausalLM(
        GptOssConfig(**SMALL, num_hidden_layers=6, num_local_experts=4, num_experts_per_tok=2)
    ),
}
for name, model in MODELS.items():
    prompt, seen, words = torch.ones(1, PROMPT, dtype=torch.long), {}, set()
    for way, cache in (
        ("none", None), ("DynamicCache()", DynamicCache()), ("with its config", DynamicCache(config=model.config)),
    ):
        out = model.eval().generate(
            prompt, past_key_values=cache, max_new_tokens=NEW, min_new_tokens=NEW, do_sample=False,
            return_dict_in_generate=True,
        )
        layers = out.past_key_values.layers
        seen[way] = sum(one.untyped_storage().nbytes() for layer in layers for one in (layer.keys, layer.values))
        words.add(tuple(out.sequences[0].tolist()))
        print(f"{name}, {way}: tokens in each layer {[layer.keys.shape[-2] for layer in layers]}, {seen[way]:,} bytes")
    assert len(words) == 1 and seen["none"] == seen["with its config"]
    whole, windowed = PROMPT + NEW - 1, sum(kind == "sliding_attention" for kind in model.config.layer_types)
    assert windowed == (5 if name == "Gemma 3" else 3)
    assert seen["DynamicCache()"] * (6 - windowed) / 6 < seen["none"]
    assert seen["DynamicCache()"] / seen["none"] > 6 * whole / ((6 - windowed) * whole + windowed * WINDOW) - 0.01
TOKEN = 2 * 4 * 256 * 2  # keys and values of a layer of Gemma 3 4B, 29 of whose 34 layers see 1,024 tokens
print(f"Gemma 3 4B, 32,768 tokens: {34 * 32_768 * TOKEN / 2**30:.2f} GiB,",
      f"{(5 * 32_768 + 29 * 1023) * TOKEN / 2**30:.2f} with windows")
PYTHON
"$folder/venv/bin/python" "$folder/see.py" 2> "$folder/said" || { cat "$folder/said" >&2; exit 1; }
