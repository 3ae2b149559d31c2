#!/usr/bin/env bash
# transformers, compressed-tensors: a 4-bit model is one until its first call, then it is whole for good.
#
# Guess: a checkpoint in the format of llm-compressor and vLLM (pack-quantized, W4A16) takes 4 bits a weight
#        in transformers too: what is loaded, and what get_memory_footprint() says, stays.
# Seen:  27 % of bfloat16 after loading. The first call unpacks every layer before any runs, and the packed
#        weights go: 100 % from then on, whatever is called afterwards.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q torch==2.13.0 transformers==5.23.0 accelerate==1.15.0 compressed-tensors==0.20.1
cat > "$folder/see.py" <<'PYTHON'
import sys
from importlib.metadata import version

import torch
from compressed_tensors.compressors import ModelCompressor
from compressed_tensors.quantization import QuantizationConfig, apply_quantization_config, preset_name_to_scheme
from transformers import LlamaConfig, LlamaForCausalLM

print(*(f"{name} {version(name)}" for name in ("torch", "transformers", "compressed-tensors")))
GROUP = 128
model = LlamaForCausalLM(
    LlamaConfig(
        vocab_size=64, hidden_size=512, intermediate_size=1024, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=4,
    )
).to(torch.bfloat16)
whole = model.get_memory_footprint()
scheme = {"group_0": preset_name_to_scheme("W4A16", ["Linear"])}
apply_quantization_config(model, QuantizationConfig(config_groups=scheme, ignore=["lm_head"]))
for layer in model.modules():
    if hasattr(layer, "weight_scale"):
        groups = layer.weight.detach().unflatten(1, (-1, GROUP))
        layer.weight_scale.data.copy_(groups.abs().amax(-1) / 7)
compressor = ModelCompressor.from_pretrained_model(model)
compressor.compress_model(model)
model.save_pretrained(sys.argv[1])
compressor.update_config(sys.argv[1])

model = LlamaForCausalLM.from_pretrained(sys.argv[1], dtype=torch.bfloat16)
layer = model.model.layers[0].mlp.up_proj
loaded = model.get_memory_footprint() / whole
print(f"loaded: {loaded:.1%} of bfloat16; a layer has", sorted(dict(layer.named_parameters())))
assert 0.25 < loaded < 0.3 and layer.weight_packed.dtype is torch.int32
with torch.no_grad():
    model(torch.zeros(1, 1, dtype=torch.long))
after = model.get_memory_footprint() / whole
print(f"after a call of one token: {after:.1%}; a layer has", sorted(dict(layer.named_parameters())))
assert after > 1 and layer.weight.dtype is torch.bfloat16
PYTHON
"$folder/venv/bin/python" "$folder/see.py" "$folder/model" 2> "$folder/said" || { cat "$folder/said" >&2; exit 1; }
