#!/usr/bin/env bash
# peft: a bfloat16 model trained with LoRA keeps more activations than one of which all is trained.
#
# Guess: frozen matrices keep nothing for the backward pass, and adapters keep their inputs, which matrices that
#        read the same (query, key, value) share, as they do without LoRA: next to nothing is added.
# Seen:  adapters are fp32 by default, and each casts its input and keeps a copy of its own: for query, key
#        and value six times the bytes of the one input that all three share where adapters are bfloat16. Under
#        autocast three times. Dropout (0.05, say) makes it twelve and nine, and six where adapters are bfloat16.
#        A Llama with adapters on all linear layers keeps 1.4 times what full training keeps, 2.1 times with dropout.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q torch==2.13.0 transformers==5.23.0 accelerate==1.15.0 peft==0.21.0
cat > "$folder/see.py" <<'PYTHON'
from contextlib import nullcontext
from importlib.metadata import version

import torch
from peft import LoraConfig, get_peft_model
from transformers import LlamaConfig, LlamaForCausalLM

HALF = torch.bfloat16
print(*(f"{name} {version(name)}" for name in ("torch", "transformers", "peft")))


class Three(torch.nn.Module):
    """Three matrices that read the same."""

    def __init__(self):
        super().__init__()
        self.q, self.k, self.v = (torch.nn.Linear(512, 512, bias=False) for _ in range(3))

    def forward(self, x):
        return self.q(x) + self.k(x) + self.v(x)


def kept(model, *args, **kwargs):
    """Return the bytes that autograd keeps of one call, parameters and buffers aside."""
    own = {one.untyped_storage()._cdata for one in [*model.parameters(), *model.buffers()]}
    found = {}

    def pack(tensor):
        storage = tensor.untyped_storage()
        if storage._cdata not in own:
            found[storage._cdata] = storage
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        out = model(*args, **kwargs)
    size = sum(one.nbytes() for one in found.values())
    del out
    return size


x = torch.ones(1, 1024, 512, dtype=HALF, requires_grad=True)
full = kept(Three().to(HALF).train(), x) / x.nbytes
print(f"no adapters: {full:.2f} of the input's bytes kept")
assert full == 1
for name, dropout, cast, around, expected in (
    ("bfloat16 adapters", 0, False, nullcontext, 1), ("fp32 adapters, the default", 0, True, nullcontext, 6),
    ("the default under autocast", 0, True, lambda: torch.autocast("cpu", HALF), 3),
    ("bfloat16 adapters, dropout", 0.05, False, nullcontext, 6), ("the default, dropout", 0.05, True, nullcontext, 12),
    ("the default under autocast, dropout", 0.05, True, lambda: torch.autocast("cpu", HALF), 9),
):
    config = LoraConfig(r=4, target_modules=["q", "k", "v"], lora_dropout=dropout)
    model = get_peft_model(Three().to(HALF), config, autocast_adapter_dtype=cast).train()
    with around():
        found = kept(model, x) / x.nbytes
    print(f"{name}: {found:.2f}")
    assert abs(found - expected) < 0.1

SHAPE = LlamaConfig(
    vocab_size=64, hidden_size=256, intermediate_size=768, num_hidden_layers=4, num_attention_heads=4,
    num_key_value_heads=2,
)
words = torch.zeros(1, 512, dtype=torch.long)
full = kept(LlamaForCausalLM(SHAPE).to(HALF).train(), words, use_cache=False)
for name, dropout, cast, low, high in (
    ("bfloat16 adapters", 0, False, 0.8, 1), ("the default", 0, True, 1.3, 1.5),
    ("the default, dropout", 0.05, True, 2, 2.3),
):
    config = LoraConfig(r=8, target_modules="all-linear", lora_dropout=dropout, task_type="CAUSAL_LM")
    model = get_peft_model(LlamaForCausalLM(SHAPE).to(HALF), config, autocast_adapter_dtype=cast).train()
    found = kept(model, words, use_cache=False) / full
    print(f"Llama, {name}: {found:.2f} of what full training keeps")
    assert low < found < high
PYTHON
"$folder/venv/bin/python" "$folder/see.py" 2> "$folder/said" || { cat "$folder/said" >&2; exit 1; }
