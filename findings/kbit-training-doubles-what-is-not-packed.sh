#!/usr/bin/env bash
# peft, transformers: prepared for training in 4 bits, a mixture of experts takes twice its bfloat16 size.
#
# Guess: prepare_model_for_kbit_training casts norms to fp32 (and the head, so it says): a few MB.
# Seen:  whatever is not in 4 bits becomes fp32. That is the embedding, 1.25 GiB more for Gemma 3 4B, frozen as it
#        is, and all experts, which transformers 5 never packs: a small Qwen3 MoE of 13.3 MiB in bfloat16 is loaded "in 4
#        bits" in 12.7 and prepared in 25.2. At the shapes of Qwen3 30B-A3B the experts alone become 108 GiB.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q torch==2.13.0 transformers==5.23.0 accelerate==1.15.0 peft==0.21.0 bitsandbytes==0.50.2
cat > "$folder/see.py" <<'PYTHON'
import sys
from importlib.metadata import version

import torch
from peft import prepare_model_for_kbit_training
from transformers import (
    BitsAndBytesConfig, Gemma3ForCausalLM, Gemma3TextConfig, Qwen3MoeConfig, Qwen3MoeForCausalLM,
)

HALF, FULL = torch.bfloat16, torch.float32
print(*(f"{name} {version(name)}" for name in ("torch", "transformers", "peft", "bitsandbytes")))
SMALL = {"hidden_size": 256, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 64}
MODELS = {
    "Qwen3 MoE": (
        Qwen3MoeForCausalLM,
        Qwen3MoeConfig(**SMALL, vocab_size=512, moe_intermediate_size=256, num_experts=16, num_experts_per_tok=2),
        ".experts.",
    ),
    "Gemma 3": (Gemma3ForCausalLM, Gemma3TextConfig(**SMALL, vocab_size=16_384, intermediate_size=512), "embed_tokens"),
}


def size(model):
    return sum(one.nbytes for one in model.parameters()) / 2**20


for name, (build, config, what) in MODELS.items():
    folder = f"{sys.argv[1]}/{build.__name__}"
    plain = build(config).to(HALF)
    plain.save_pretrained(folder)
    four = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=HALF)
    model = build.from_pretrained(folder, dtype=HALF, quantization_config=four)
    left = [one for name, one in model.named_parameters() if what in name]
    before = size(model)
    assert left and all(one.dtype is HALF for one in left)
    model = prepare_model_for_kbit_training(model)
    after = [one for name, one in model.named_parameters() if what in name]
    print(f"{name}: {size(plain):.1f} MiB in bfloat16, {before:.1f} in 4 bits, {size(model):.1f} prepared;",
          f"{what} {[str(one.dtype) for one in after[:1]]}, trained: {any(one.requires_grad for one in after)}")
    assert all(one.dtype is FULL and not one.requires_grad for one in after)
    assert size(model) > 1.8 * before
PYTHON
"$folder/venv/bin/python" "$folder/see.py" "$folder/models" 2> "$folder/said" || { cat "$folder/said" >&2; exit 1; }
