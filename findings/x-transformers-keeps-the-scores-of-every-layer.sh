#!/usr/bin/env bash
# x-transformers: without attn_flash every layer's scores are kept until the end of a call, three times each.
#
# Guess: without gradients, scores (tokens x tokens for each head) go with their layer: one layer's at a time.
# Seen:  copies of the scores before the mask, after it, and after the softmax go into a record of each layer that
#        lives as long as the call, whether it is asked for (return_intermediates) or not, under no_grad, too. Twelve
#        layers of 12 heads and 2,048 tokens hold 6.8 GiB in float32, not 0.2. With attn_flash=True nothing of it is
#        made.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q torch==2.13.0 x-transformers==2.31.10
cat > "$folder/see.py" <<'PYTHON'
import weakref
from importlib.metadata import version

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from x_transformers import Decoder, TransformerWrapper

TOKENS, HEADS = 512, 4
print(*(f"{name} {version(name)}" for name in ("torch", "x-transformers")))


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


peaks = {}
for flash in (False, True):
    for layers in (2, 8):
        model = TransformerWrapper(
            num_tokens=64, max_seq_len=TOKENS,
            attn_layers=Decoder(dim=64, depth=layers, heads=HEADS, attn_dim_head=16, attn_flash=flash),
        ).eval()
        with torch.no_grad(), Counted() as counted:
            model(torch.zeros(1, TOKENS, dtype=torch.long))
        peaks[flash, layers] = counted.peak / (HEADS * TOKENS * TOKENS * 4)
        print(f"attn_flash={flash}, {layers} layers: {peaks[flash, layers]:.2f} times the scores of one layer")
more = (peaks[False, 8] - peaks[False, 2]) / 6
print(f"each layer more, without attn_flash: {more:.2f}; 12 layers, 12 heads, 2,048 tokens:",
      f"{12 * 3 * 12 * 2048 * 2048 * 4 / 2**30:.1f} GiB of copies, {12 * 2048 * 2048 * 4 / 2**30:.1f} for one of them")
assert 3 <= more < 3.3 and peaks[False, 2] > 6 and peaks[True, 8] < 2
PYTHON
"$folder/venv/bin/python" "$folder/see.py" 2> "$folder/said" || { cat "$folder/said" >&2; exit 1; }
