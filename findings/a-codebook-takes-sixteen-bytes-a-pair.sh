#!/usr/bin/env bash
# vector-quantize-pytorch: finding the nearest codes takes 16 bytes for each vector and code, in eval(), too.
#
# Guess: distances, one float32 for each vector and code; what the moving averages need is made in training alone.
# Seen:  in both modes each vector's code is also written out as a row of zeros and a one, in int64 first and then in
#        float32: with the distances four times as much as they. 32,768 vectors (eight images of 64 x 64) and 16,384
#        codes take 8 GiB, not 2. Codes without a table (FSQ) take next to nothing.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q torch==2.13.0 vector-quantize-pytorch==1.32.0
cat > "$folder/see.py" <<'PYTHON'
import weakref
from importlib.metadata import version

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from vector_quantize_pytorch import FSQ, VectorQuantize

VECTORS, CODES, WIDE = 1024, 4096, 8
print(*(f"{name} {version(name)}" for name in ("torch", "vector-quantize-pytorch")))


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


given = torch.rand(1, VECTORS, WIDE)
for name, layer, low, high in (
    ("Euclidean", VectorQuantize(WIDE, CODES), 15.9, 16.3),
    ("cosine", VectorQuantize(WIDE, CODES, use_cosine_sim=True), 15.9, 16.3),
    ("FSQ, 8 x 8 x 8 x 8", FSQ([8, 8, 8, 8], dim=WIDE), 0, 0.1),
):
    for training in (True, False):
        layer.train(training)
        with torch.no_grad(), Counted() as counted:
            layer(given)
        found = counted.peak / (VECTORS * CODES)
        print(f"{name}, {'training' if training else 'eval()'}: {found:.2f} bytes a vector and code")
        assert low <= found <= high
PYTHON
"$folder/venv/bin/python" "$folder/see.py" 2> "$folder/said" || { cat "$folder/said" >&2; exit 1; }
