#!/usr/bin/env bash
# transformers: where a config names no dtype, one tensor decides for the whole model: the file's first.
#
# Guess: a file of mixed dtypes loads as it is, or in the dtype that most of it has.
# Seen:  all of it is cast to that of the first floating-point tensor. A bfloat16 model of 111 tensors whose
#        head alone is fp32 (lm_head sorts first) takes twice its file; an fp32 model whose head alone is bfloat16
#        loses half of its digits, silently. Any other tensor in another dtype changes nothing.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q torch==2.13.0 transformers==5.23.0
cat > "$folder/see.py" <<'PYTHON'
import json
import sys
from importlib.metadata import version
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from transformers import LlamaConfig, LlamaForCausalLM

folder = Path(sys.argv[1])
weights, config = folder / "model.safetensors", folder / "config.json"
print(*(f"{name} {version(name)}" for name in ("torch", "transformers", "safetensors")))


def load(most, odd, name):
    """Save a model in one dtype with one tensor in another, without a dtype in its config; load it."""
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=64, hidden_size=64, intermediate_size=128, num_hidden_layers=12, num_attention_heads=4
        )
    )
    model.to(most).save_pretrained(folder)
    tensors = load_file(weights)
    tensors[name] = tensors[name].to(odd)
    save_file(tensors, weights, metadata={"format": "pt"})
    said = json.loads(config.read_text())
    said.pop("dtype")
    config.write_text(json.dumps(said))
    loaded = LlamaForCausalLM.from_pretrained(folder)
    dtypes = {one.dtype for one in loaded.parameters()}
    assert len(dtypes) == 1
    file = sum(one.nbytes for one in tensors.values())
    print(f"{most}, {name} in {odd}: loaded in {dtypes}, {loaded.get_memory_footprint() / file:.2f} of the file")
    return dtypes.pop(), len(tensors)


HALF, FULL = torch.bfloat16, torch.float32
assert load(HALF, FULL, "lm_head.weight") == (FULL, 111)
assert load(FULL, HALF, "lm_head.weight") == (HALF, 111)
for other in ("model.embed_tokens.weight", "model.norm.weight"):
    assert load(HALF, FULL, other) == (HALF, 111)
PYTHON
"$folder/venv/bin/python" "$folder/see.py" "$folder/model" 2> "$folder/said" || { cat "$folder/said" >&2; exit 1; }
