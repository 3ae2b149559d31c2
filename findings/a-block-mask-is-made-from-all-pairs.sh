#!/usr/bin/env bash
# torch: a block mask for FlexAttention is made from all pairs of tokens, in as many bytes as its rule computes with.
#
# Guess: create_block_mask asks its rule once for each block of 128 x 128, or makes a boolean mask once.
# Seen:  the rule runs over all pairs at once, and each step of it is a matrix: a causal one takes 2 bytes a pair, one with
#        a window 10, since the distance of two tokens is an int64, and a distance divided 16. What is kept is a thousandth
#        of a byte. Masks in batches that differ are added to it. For a window in 32,768 tokens that is 10 GiB for a
#        moment, ten times the mask that FlexAttention is there to do without; in 131,072 160 GiB.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q torch==2.13.0 numpy==2.4.6
cat > "$folder/see.py" <<'PYTHON'
import weakref
from importlib.metadata import version

import torch
from torch.nn.attention.flex_attention import create_block_mask
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

print(f"torch {version('torch')}")


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


def causal(batch, head, query, key):
    return query >= key


def window(batch, head, query, key):
    return (query >= key) & (query - key < 256)


def dilated(batch, head, query, key):
    return (query - key) % 4 == 0


for tokens in (1024, 2048):
    for rule, most in ((causal, 2), (window, 10), (dilated, 16)):
        with Counted() as counted:
            made = create_block_mask(rule, None, None, tokens, tokens, device="cpu")
        found, kept = counted.peak / tokens**2, counted.now / tokens**2
        print(f"{rule.__name__}, {tokens:,} tokens: {found:.2f} bytes a pair, {kept:.4f} of them kept")
        assert most <= found < most + 0.1 and kept < 0.002
        del made
print(f"a window in 32,768 tokens: {10 * 32_768**2 / 2**30:.0f} GiB")
PYTHON
"$folder/venv/bin/python" "$folder/see.py" 2> "$folder/said" || { cat "$folder/said" >&2; exit 1; }
