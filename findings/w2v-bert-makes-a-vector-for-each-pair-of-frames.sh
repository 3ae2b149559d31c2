#!/usr/bin/env bash
# transformers: W2V-BERT 2.0 makes a vector of 64 numbers for each pair of frames, in every layer.
#
# Guess: relative positions add a number to each score: tokens x tokens for each of the 16 heads, of which sdpa writes
#        none out.
# Seen:  each layer takes a vector of the width of a head from its table for every pair of frames, lays them out anew
#        for their product with the queries, and writes all scores out: 205 bytes a pair in half precision. A minute of
#        speech, 3,000 frames, wants 1.7 GiB beside the model's 1.1, ten minutes 172 GiB. With rotary positions, or
#        none, which its config can ask for, a minute wants 72 MiB.
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
from transformers import Wav2Vec2BertConfig, Wav2Vec2BertModel

print(*(f"{name} {version(name)}" for name in ("torch", "transformers")))

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


def peak(frames, **other):
    """Return the bytes that a forward in half precision makes at once."""
    config = Wav2Vec2BertConfig(num_hidden_layers=2, **other)
    with torch.device("meta"):
        model = Wav2Vec2BertModel(config).eval().half()
    given = torch.empty(1, frames, 160, device="meta", dtype=torch.float16)
    with torch.inference_mode(), Counted() as counted:
        model(given)
    return counted.peak


for other in ({}, {"position_embeddings_type": "rotary"}, {"position_embeddings_type": None}):
    for seconds in (30, 60):
        frames = seconds * 50
        found = peak(frames, **other)
        print(f"{other.get('position_embeddings_type', 'as published')}, {seconds} s, {frames:,} frames:",
              f"{found / 2**20:,.0f} MiB, {found / frames**2:.1f} bytes a pair of frames")
    assert 203 < found / frames**2 < 211 if not other else found < 80 * 2**20
PYTHON
"$folder/venv/bin/python" "$folder/see.py" 2> "$folder/said" || { cat "$folder/said" >&2; exit 1; }
