#!/usr/bin/env bash
# transformers, bitsandbytes: T5 loaded in 4 bits keeps a matrix of every layer unquantised.
#
# Guess: load_in_4bit leaves the embedding and what says it is a head; all other linear layers are packed.
# Seen:  T5 names wo, the second matrix of its feed-forward layers, to be kept in fp32 for fp16's sake,
#        and what is so named is not quantised, in bfloat16 neither. At the shapes of T5-XXL, the text
#        encoder of FLUX.1 and SD 3, wo is a fifth of the parameters: in bfloat16 about as many bytes as
#        all that is packed, in fp16 (where it is fp32) twice as many.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q torch==2.13.0 transformers==5.23.0 accelerate==1.15.0 bitsandbytes==0.50.2
cat > "$folder/see.py" <<'PYTHON'
import sys
from importlib.metadata import version

import torch
from transformers import BitsAndBytesConfig, T5Config, T5EncoderModel

print(*(f"{name} {version(name)}" for name in ("torch", "transformers", "bitsandbytes")))
config = T5Config(
    vocab_size=64, d_model=256, d_ff=640, d_kv=64, num_layers=3, num_heads=4, feed_forward_proj="gated-gelu"
)
T5EncoderModel(config).save_pretrained(sys.argv[1])
for dtype in (torch.float16, torch.bfloat16):
    model = T5EncoderModel.from_pretrained(
        sys.argv[1], dtype=dtype, device_map="cpu",
        quantization_config=BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_compute_dtype=dtype),
    )
    linear = {
        name: part.weight
        for name, part in model.named_modules()
        if isinstance(part, torch.nn.Linear) and "relative" not in name
    }
    packed = {name for name, weight in linear.items() if weight.dtype is torch.uint8}
    left = set(linear) - packed
    types = {str(linear[name].dtype) for name in left}
    size = sum(linear[name].nbytes for name in left) / sum(one.nbytes for one in linear.values())
    print(f"{dtype}: {len(packed)} packed, {len(left)} not ({types}), {size:.0%} of the linear layers' bytes")
    assert left == {name for name in linear if name.endswith(".wo")}
    assert len(left) == config.num_layers
XXL = T5Config(
    vocab_size=32128, d_model=4096, d_ff=10240, d_kv=64, num_layers=24, num_heads=64, feed_forward_proj="gated-gelu"
)
with torch.device("meta"):
    whole = T5EncoderModel(XXL)
many = sum(one.numel() for one in whole.parameters())
kept = sum(one.numel() for name, one in whole.named_parameters() if name.endswith(".wo.weight"))
print(f"T5-XXL: {many:,} parameters, {kept:,} of them in wo: {kept / many:.1%}")
assert 0.2 < kept / many < 0.22
PYTHON
"$folder/venv/bin/python" "$folder/see.py" "$folder/model" 2> "$folder/said" || { cat "$folder/said" >&2; exit 1; }
