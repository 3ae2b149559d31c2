#!/usr/bin/env bash
# transformers: a mixture of experts that is loaded in 4 or 8 bits keeps its experts, 95 % of it, in bfloat16.
#
# Guess: load_in_4bit packs all linear layers but the head, and an expert is three of them: a third of bfloat16.
# Seen:  transformers 5 holds the experts of a layer in two parameters of three dimensions, and bitsandbytes
#        (4 and 8 bits), optimum-quanto and torchao look for linear layers. Attention and shared matrices are packed,
#        all experts are left as they were, without a word. At the shapes of Qwen3 30B-A3B that is
#        29.0 of 30.5 billion parameters: 54 GiB stay of 57.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q torch==2.13.0 transformers==5.23.0 accelerate==1.15.0 bitsandbytes==0.50.2 \
  optimum-quanto==0.2.7 torchao==0.18.0
cat > "$folder/see.py" <<'PYTHON'
import sys
from importlib.metadata import version

import torch
from torchao.quantization import Int8WeightOnlyConfig
from transformers import (
    BitsAndBytesConfig, MixtralConfig, MixtralForCausalLM, QuantoConfig, Qwen3MoeConfig, Qwen3MoeForCausalLM,
    TorchAoConfig,
)

print(*(f"{name} {version(name)}" for name in
        ("torch", "transformers", "bitsandbytes", "optimum-quanto", "torchao")))
SMALL = {
    "vocab_size": 64, "hidden_size": 256, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "num_experts_per_tok": 2,
}
MODELS = [
    (Qwen3MoeForCausalLM, Qwen3MoeConfig(**SMALL, moe_intermediate_size=256, num_experts=16, head_dim=64)),
    (MixtralForCausalLM, MixtralConfig(**SMALL, intermediate_size=512, num_local_experts=8)),
]
WAYS = {
    "bitsandbytes, 4 bits": lambda: BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4"),
    "bitsandbytes, 8 bits": lambda: BitsAndBytesConfig(load_in_8bit=True),
    "quanto, int4": lambda: QuantoConfig(weights="int4"),
    "torchao, int8": lambda: TorchAoConfig(Int8WeightOnlyConfig()),
}


def experts(model):
    return {name: one for name, one in model.named_parameters() if ".experts." in name}


for build, config in MODELS:
    folder = f"{sys.argv[1]}/{build.__name__}"
    build(config).to(torch.bfloat16).save_pretrained(folder)
    for way, settings in WAYS.items():
        model = build.from_pretrained(folder, dtype=torch.bfloat16, quantization_config=settings())
        left = experts(model)
        query = model.model.layers[0].self_attn.q_proj.weight
        print(f"{build.__name__}, {way}: attention in {type(query).__name__}, experts in",
              {f"{type(one).__name__} {one.dtype}" for one in left.values()})
        assert len(left) == 2 * config.num_hidden_layers
        assert all(type(one) is torch.nn.Parameter and one.dtype is torch.bfloat16 for one in left.values())
        assert type(query) is not torch.nn.Parameter  # a packed tensor, or a parameter of the library's own class

with torch.device("meta"):
    whole = Qwen3MoeForCausalLM(
        Qwen3MoeConfig(  # Qwen3 30B-A3B
            vocab_size=151_936, hidden_size=2048, moe_intermediate_size=768, num_experts=128, num_experts_per_tok=8,
            num_hidden_layers=48, num_attention_heads=32, num_key_value_heads=4, head_dim=128,
        )
    )
left, total = (sum(one.numel() for one in many) for many in (experts(whole).values(), whole.parameters()))
print(f"Qwen3 30B-A3B: {left / 1e9:.1f} of {total / 1e9:.1f} billion parameters,",
      f"{left * 2 / 2**30:.1f} of {total * 2 / 2**30:.1f} GiB")
assert total == 30_532_122_624 and 0.94 < left / total < 0.96
PYTHON
"$folder/venv/bin/python" "$folder/see.py" "$folder/models" 2> "$folder/said" || { cat "$folder/said" >&2; exit 1; }
