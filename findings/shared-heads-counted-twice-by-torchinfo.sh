#!/usr/bin/env bash
# torchinfo: a head that is the embedding counts again in the total.
#
# Guess: "Total params" and "Params size" count a shared matrix once, as model.parameters() does.
# Seen:  each layer that holds it counts. Gemma 3 270M has 268 million parameters; torchinfo says 436 million
#        and as much more memory, and "trainable" goes wrong by the same.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q torch==2.13.0 transformers==5.23.0 torchinfo==1.8.0
cat > "$folder/see.py" <<'PYTHON'
from importlib.metadata import version

import torch
import torchinfo
from transformers import Gemma3ForCausalLM, Gemma3TextConfig

print(*(f"{name} {version(name)}" for name in ("torch", "transformers", "torchinfo")))
with torch.device("meta"):
    model = Gemma3ForCausalLM(  # the shapes of Gemma 3 270M
        Gemma3TextConfig(
            vocab_size=262_144, hidden_size=640, intermediate_size=2048, num_hidden_layers=18,
            num_attention_heads=4, num_key_value_heads=1, head_dim=256,
        )
    ).to(torch.bfloat16)
assert model.lm_head.weight is model.model.embed_tokens.weight
true = sum(one.numel() for one in model.parameters())
said = torchinfo.summary(model, verbose=0)
print(f"{true:,} parameters; torchinfo: {said.total_params:,}, {said.total_param_bytes:,} bytes")
assert said.total_params - true == model.lm_head.weight.numel() == 262_144 * 640
assert said.total_param_bytes == 2 * said.total_params
PYTHON
"$folder/venv/bin/python" "$folder/see.py" 2> "$folder/said" || { cat "$folder/said" >&2; exit 1; }
