#!/usr/bin/env bash
# peft: training two tokens copies the whole embedding at each call.
#
# Guess: trainable_token_indices costs the rows of those tokens, which is all that is trained and saved.
# Seen:  each call puts them into a new copy of the whole matrix, for one token of input, too, and again for a shared
#        head: 320 MiB of scratch each at the shapes of Gemma 3 270M, and in training the head's is kept until the
#        backward pass. merge_and_unload() gets rid of it.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q torch==2.13.0 transformers==5.23.0 accelerate==1.15.0 peft==0.21.0
cat > "$folder/see.py" <<'PYTHON'
from importlib.metadata import version

import torch
from peft import LoraConfig, get_peft_model
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import LlamaConfig, LlamaForCausalLM

WORDS, WIDE = 50_000, 64
MATRIX = WORDS * WIDE * 2
print(*(f"{name} {version(name)}" for name in ("torch", "transformers", "peft")))


class Copies(TorchDispatchMode):
    """Count the new tensors of the embedding's shape."""

    made = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        out = function(*args, **(kwargs or {}))
        known = {one.untyped_storage()._cdata for one in args if isinstance(one, torch.Tensor)}
        if isinstance(out, torch.Tensor) and out.shape == (WORDS, WIDE) and out.untyped_storage()._cdata not in known:
            self.made += 1
        return out


def copies(model):
    with torch.no_grad(), Copies() as counted:
        model(torch.zeros(1, 1, dtype=torch.long), use_cache=False)
    return counted.made


def kept(model):
    """Return how many matrices of the embedding's size autograd keeps of one call, parameters aside."""
    own = {one.untyped_storage()._cdata for one in model.parameters()}
    found = {}

    def pack(tensor):
        storage = tensor.untyped_storage()
        if storage._cdata not in own and storage.nbytes() == MATRIX:
            found[storage._cdata] = storage
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        out = model(torch.zeros(1, 1, dtype=torch.long), use_cache=False)
    many = len(found)
    del out
    return many


for shared in (False, True):
    base = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=WORDS, hidden_size=WIDE, intermediate_size=64, num_hidden_layers=1, num_attention_heads=2,
            tie_word_embeddings=shared,
        )
    ).to(torch.bfloat16)
    before = copies(base.eval())
    config = LoraConfig(r=2, target_modules=["q_proj"], trainable_token_indices=[1, 2])
    model = get_peft_model(base, config)
    trained = sum(one.numel() for name, one in model.named_parameters() if "token_adapter" in name and one.requires_grad)
    during, held = copies(model.eval()), kept(model.train())
    merged = copies(model.merge_and_unload().eval())
    print(f"{'shared' if shared else 'own   '} head: {trained} numbers trained for two tokens; copies of the whole",
          f"embedding a call: {before} before, {during} with them, {held} kept for backward, {merged} once merged")
    assert before == merged == 0 and during == (2 if shared else 1)
    assert held == (1 if shared else 0)
PYTHON
"$folder/venv/bin/python" "$folder/see.py" 2> "$folder/said" || { cat "$folder/said" >&2; exit 1; }
