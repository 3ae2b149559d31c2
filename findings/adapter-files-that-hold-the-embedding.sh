#!/usr/bin/env bash
# peft: LoRA on the head or the embedding saves the base model's whole matrix in the adapter's file.
#
# Guess: an adapter's file holds the thin matrices, whatever they are attached to.
# Seen:  where target_modules names lm_head or embed_tokens, save_embedding_layers="auto" adds the unchanged base
#        weight: one row of it for each word. At the shapes of Gemma 3 270M a LoRA of rank 8 on q_proj and
#        lm_head is an adapter of 9 MiB in a file of 329, more than half of the model. "all-linear" leaves the head
#        out. Who takes the file's size for the adapter's is wrong by 37 times.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q torch==2.13.0 transformers==5.23.0 accelerate==1.15.0 peft==0.21.0
cat > "$folder/see.py" <<'PYTHON'
import sys
from importlib.metadata import version
from pathlib import Path

import torch
from peft import LoraConfig, get_peft_model
from transformers import Gemma3ForCausalLM, Gemma3TextConfig

MIB = 1 << 20
file = Path(sys.argv[1]) / "adapter_model.safetensors"
print(*(f"{name} {version(name)}" for name in ("torch", "transformers", "peft")))
config = Gemma3TextConfig(  # the shapes of Gemma 3 270M
    vocab_size=262_144, hidden_size=640, intermediate_size=2048, num_hidden_layers=18, num_attention_heads=4,
    num_key_value_heads=1, head_dim=256,
)
torch.set_default_dtype(torch.bfloat16)
with torch.device("meta"):
    base = Gemma3ForCausalLM(config)
base = base.to_empty(device="cpu")
base.tie_weights()
matrix = base.lm_head.weight.nbytes
for targets in (["q_proj"], "all-linear", ["q_proj", "lm_head"]):
    model = get_peft_model(base, LoraConfig(r=8, target_modules=targets))
    adapter = sum(one.nbytes for name, one in model.named_parameters() if "lora_" in name)
    model.save_pretrained(sys.argv[1])
    size = file.stat().st_size
    print(f"{targets}: adapter {adapter / MIB:.1f} MiB, file {size / MIB:.1f} MiB")
    beside = size - adapter
    assert (matrix if "lm_head" in targets else 0) <= beside < (matrix if "lm_head" in targets else 0) + MIB
    base = model.unload()
PYTHON
"$folder/venv/bin/python" "$folder/see.py" "$folder/adapter" 2> "$folder/said" || { cat "$folder/said" >&2; exit 1; }
