#!/usr/bin/env bash
# peft, transformers: LoRA on a mixture's experts makes the change of every expert's weights at each call.
#
# Guess: LoRA adds two thin products for the experts that a token chose.
# Seen:  transformers 5 holds all experts of a layer in one parameter, which peft can only adapt by
#        target_parameters, and that multiplies A and B out for all experts, chosen or not, and adds it to the
#        weight: as much scratch as all experts of a layer for one token, and in training it is kept for
#        the backward pass in every layer but the first: all experts once more, from adapters of 2 %.
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
from transformers import Qwen3MoeConfig, Qwen3MoeForCausalLM

LAYERS = 3
print(*(f"{name} {version(name)}" for name in ("torch", "transformers", "peft")))


class Counted(TorchDispatchMode):
    """Count the bytes of storages that appear while it is on, until they are freed."""

    def __init__(self):
        super().__init__()
        self.known, self.now, self.peak = {}, 0, 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        for one in tree_leaves((args, kwargs)):
            if isinstance(one, torch.Tensor):
                self.known.setdefault(one.untyped_storage()._cdata, 0)
        out = function(*args, **(kwargs or {}))
        for one in tree_leaves(out):
            if isinstance(one, torch.Tensor) and one.untyped_storage()._cdata not in self.known:
                storage = one.untyped_storage()
                self.known[storage._cdata] = storage.nbytes()
                self.now += storage.nbytes()
                self.peak = max(self.peak, self.now)
                weakref.finalize(storage, self.freed, storage._cdata)
        return out

    def freed(self, which):
        self.now -= self.known.pop(which, 0)


def kept(model, tokens):
    """Return the bytes that autograd keeps of one call, parameters aside."""
    own = {one.untyped_storage()._cdata for one in model.parameters()}
    found = {}

    def pack(tensor):
        storage = tensor.untyped_storage()
        if storage._cdata not in own:
            found[storage._cdata] = storage
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        out = model(tokens, use_cache=False)
    size = sum(one.nbytes() for one in found.values())
    del out
    return size


def made():
    return Qwen3MoeForCausalLM(
        Qwen3MoeConfig(
            vocab_size=64, hidden_size=128, moe_intermediate_size=256, num_experts=32, num_experts_per_tok=2,
            num_hidden_layers=LAYERS, num_attention_heads=4, num_key_value_heads=1, head_dim=32,
        )
    ).to(torch.bfloat16)


token = torch.zeros(1, 1, dtype=torch.long)
for name, settings in {
    "attention": {"target_modules": ["q_proj", "v_proj"]},
    "experts": {"target_modules": [], "target_parameters": ["mlp.experts.gate_up_proj", "mlp.experts.down_proj"]},
}.items():
    base = made()
    layer = sum(one.nbytes for one in base.model.layers[0].mlp.experts.parameters())
    model = get_peft_model(base, LoraConfig(r=2, **settings))
    own = sum(one.numel() for one in model.parameters() if one.requires_grad) * 2 / (LAYERS * layer)
    with torch.no_grad(), Counted() as counted:
        model.eval()(token, use_cache=False)
    scratch, held = counted.peak / layer, kept(model.train(), token) / layer
    print(f"{name}: adapters of {own:.1%} of the experts' parameters; for one token {scratch:.2f} layers' experts",
          f"as scratch, {held:.2f} kept for the backward pass of {LAYERS} layers")
    if name == "attention":
        assert scratch < 0.1 and held < 0.1
    else:  # the first layer's input wants no gradient
        assert own < 0.05 and scratch > 1 and held > LAYERS - 1
PYTHON
"$folder/venv/bin/python" "$folder/see.py" 2> "$folder/said" || { cat "$folder/said" >&2; exit 1; }
