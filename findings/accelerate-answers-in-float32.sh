#!/usr/bin/env bash
# accelerate: a model prepared for half precision answers in float32, and its logits are there twice for a moment.
#
# Guess: with mixed precision logits are in half precision: 2 bytes a number.
# Seen:  all tensors of the answer are made float32 when the model returns, the half ones beside them: of a prompt's
#        logits 6 bytes a number at once and 4 kept, in evaluation as in training, where the same model under
#        torch.autocast takes 2. For 8,192 tokens of Llama 3.2's 128,256 words that is 5.9 GiB, not 2.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q torch==2.13.0 accelerate==1.15.0 transformers==5.23.0
cat > "$folder/see.py" <<'PYTHON'
import weakref
from importlib.metadata import version

import torch
from accelerate import Accelerator
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers import LlamaConfig, LlamaForCausalLM

print(*(f"{name} {version(name)}" for name in ("torch", "accelerate", "transformers")))
WORDS, TOKENS, LAYERS, WIDE = 50_000, 256, 4, 64

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


config = LlamaConfig(
    hidden_size=WIDE, intermediate_size=WIDE, num_hidden_layers=LAYERS, num_attention_heads=1, vocab_size=WORDS
)
tokens = torch.ones(1, TOKENS, dtype=torch.long)
accelerator = Accelerator(mixed_precision="bf16", cpu=True)
prepared = accelerator.prepare_model(LlamaForCausalLM(config), evaluation_mode=True).eval()
plain = LlamaForCausalLM(config).eval()
for name, model, low, width in (("torch.autocast", plain, 2, 2), ("accelerate", prepared, 6, 4)):
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16), Counted() as counted:
        out = model(input_ids=tokens)
    peak, kept = counted.peak / (WORDS * TOKENS), out.logits.nbytes / (WORDS * TOKENS)
    print(f"{name}: {peak:.2f} bytes a logit at once, {kept:g} kept, {out.logits.dtype}")
    assert low < peak < low + 0.75 and kept == width
PYTHON
"$folder/venv/bin/python" "$folder/see.py" 2> "$folder/said" || { cat "$folder/said" >&2; exit 1; }
