#!/usr/bin/env bash
# peft: a layer with a LoRA adapter makes five and a half times its output on the way, without training, too.
#
# Guess: the adapter's result is as large as the layer's, and is added to it: twice the output, for a moment.
# Seen:  as peft loads it, in fp32 on a bfloat16 model, the product, its scaled copy and the sum are each made anew in
#        fp32, beside the input cast: 5.5 times the output. In bfloat16 three times. A Llama's prompt takes 1.8 times the
#        activations with adapters on all linear layers, and not a byte more with those on queries and values, which
#        stand where little else is held.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q torch==2.13.0 transformers==5.23.0 accelerate==1.15.0 peft==0.21.0
cat > "$folder/see.py" <<'PYTHON'
import weakref
from importlib.metadata import version

import torch
from peft import LoraConfig, get_peft_model
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers import LlamaConfig, LlamaForCausalLM

TOKENS, HALF = 2048, torch.bfloat16
print(*(f"{name} {version(name)}" for name in ("torch", "transformers", "peft")))


class Counted(TorchDispatchMode):
    """Count the bytes of storages that appear while it is on, until they are freed."""

    def __init__(self):
        super().__init__()
        self.known, self.now, self.peak = {}, 0, 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.note(tree_leaves((args, kwargs)), new=False)
        out = function(*args, **(kwargs or {}))
        self.note(tree_leaves(out), new=True)
        return out

    def note(self, values, new):
        for one in values:
            if isinstance(one, torch.Tensor) and one.untyped_storage()._cdata not in self.known:
                storage = one.untyped_storage()
                self.known[storage._cdata] = storage.nbytes() if new else 0
                self.now += self.known[storage._cdata]
                self.peak = max(self.peak, self.now)
                weakref.finalize(storage, self.freed, storage._cdata)

    def freed(self, which):
        self.now -= self.known.pop(which, 0)


def peak(model, targets, cast, *args, **kwargs):
    """Return the most bytes that one call makes, with adapters of rank 16 on some layers."""
    if targets:
        config = LoraConfig(r=16, target_modules=targets)
        model = get_peft_model(model, config, autocast_adapter_dtype=cast)
    with torch.no_grad(), Counted() as counted:
        model.eval()(*args, **kwargs)
    return counted.peak


for name, targets, cast, expected in (
    ("no adapter", None, None, 1), ("one in fp32, the default", ["0"], True, 5.5), ("one in bfloat16", ["0"], False, 3)
):
    layer = torch.nn.Sequential(torch.nn.Linear(256, 1024, bias=False)).to(HALF)
    found = peak(layer, targets, cast, torch.ones(1, TOKENS, 256, dtype=HALF)) / (TOKENS * 1024 * 2)
    print(f"a layer with {name}: {found:.2f} times its output")
    assert abs(found - expected) < 0.1

QUERIES = ["q_proj", "v_proj"]
LAYERS = [f"{name}_proj" for name in ("q", "k", "v", "o", "gate", "up", "down")]
SHAPE = LlamaConfig(
    vocab_size=64, hidden_size=256, intermediate_size=896, num_hidden_layers=2, num_attention_heads=8,
    num_key_value_heads=2,
)
plain = None
for name, targets, cast, low, high in (
    ("no adapters", None, None, 1, 1), ("queries and values, fp32", QUERIES, True, 1, 1.01),
    ("all linear layers, fp32", LAYERS, True, 1.7, 2), ("all linear layers, bfloat16", LAYERS, False, 1.15, 1.35),
):
    words = torch.ones(1, TOKENS, dtype=torch.long)
    model = LlamaForCausalLM(SHAPE).to(HALF)
    found = peak(model, targets, cast, input_ids=words, use_cache=False, logits_to_keep=1)
    plain = plain or found
    print(f"Llama, {name}: {found / plain:.2f} of its activations")
    assert low <= found / plain <= high
PYTHON
"$folder/venv/bin/python" "$folder/see.py" 2> "$folder/said" || { cat "$folder/said" >&2; exit 1; }
