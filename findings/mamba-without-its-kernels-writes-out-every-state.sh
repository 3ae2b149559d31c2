#!/usr/bin/env bash
# transformers: without its kernels a Mamba layer takes 109 times its width in every token, a Llama's 5.
#
# Guess: a recurrent model's prompt is read token by token with a small state: less memory than a transformer's.
# Seen:  where mamba-ssm is not installed (pip does not bring it, and it must be compiled), the state of every token
#        is written out: six tensors of tokens x width x 16 in float32 stand at the same time in Mamba, chunks of
#        tokens x tokens and states for every head in Mamba-2. At the shapes of Mamba 2.8B a prompt of 4,096 tokens
#        takes 4.3 GiB more than the weights, whose bfloat16 does not help. One line is logged: "correct but much
#        slower".
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q torch==2.13.0 transformers==5.23.0
cat > "$folder/see.py" <<'PYTHON'
import weakref
from importlib.metadata import version

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers import LlamaConfig, LlamaForCausalLM, MambaConfig, MambaForCausalLM, Mamba2Config, Mamba2ForCausalLM

TOKENS, WIDE = 512, 128
print(*(f"{name} {version(name)}" for name in ("torch", "transformers")))
PLAIN = {"vocab_size": 64, "hidden_size": WIDE, "num_hidden_layers": 2}
MODELS = {  # each with an inner width of 256
    "Llama": LlamaForCausalLM(LlamaConfig(**PLAIN, num_attention_heads=4, intermediate_size=256)),
    "Mamba": MambaForCausalLM(MambaConfig(**PLAIN, state_size=16)),
    "Mamba-2": Mamba2ForCausalLM(
        Mamba2Config(**PLAIN, state_size=128, num_heads=4, head_dim=64, n_groups=1, chunk_size=256)
    ),
}


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


for name, low, high in (("Llama", 0, 12), ("Mamba", 95, 125), ("Mamba-2", 45, 75)):
    model = MODELS[name].to(torch.bfloat16).eval()
    with torch.no_grad(), Counted() as counted:
        model(torch.zeros(1, TOKENS, dtype=torch.long), use_cache=False)
    found = counted.peak / (TOKENS * 2 * WIDE * 2)
    print(f"{name}: {found:.1f} times tokens x inner width in bfloat16")
    assert low <= found <= high
    if name == "Mamba":
        print(f"Mamba 2.8B, inner width 5,120, 4,096 tokens: {found * 5120 * 4096 * 2 / 2**30:.1f} GiB")
PYTHON
"$folder/venv/bin/python" "$folder/see.py" 2> "$folder/said" || { cat "$folder/said" >&2; exit 1; }
