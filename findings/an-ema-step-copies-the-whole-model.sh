#!/usr/bin/env bash
# diffusers: a step of EMAModel(foreach=True) makes a copy of the whole model, beside the model and its average.
#
# Guess: averages are updated in place; foreach saves launches of kernels and takes a few tensors.
# Seen:  the differences of all parameters are made at once: a third model for a moment, where the plain loop makes
#        two tensors of one parameter's size. For FLUX.1's transformer in float32 that is 44 GiB more at the end of a
#        step.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q torch==2.13.0 transformers==5.23.0 diffusers==0.42.1
cat > "$folder/see.py" <<'PYTHON'
import weakref
from importlib.metadata import version

import torch
from diffusers.training_utils import EMAModel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

LAYERS, WIDE = 16, 256
print(*(f"{name} {version(name)}" for name in ("torch", "diffusers")))


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


model = torch.nn.Sequential(*(torch.nn.Linear(WIDE, WIDE, bias=False) for _ in range(LAYERS)))
for foreach, expected in ((False, 2), (True, LAYERS)):
    average = EMAModel(model.parameters(), foreach=foreach)
    for _ in range(2):  # the first step's average is the model itself
        with Counted() as counted:
            average.step(model.parameters())
    found = counted.peak / (WIDE * WIDE * 4)
    print(f"foreach={foreach}: {found:.2f} of {LAYERS} equal layers at the peak of a step")
    assert abs(found - expected) < 0.01
PYTHON
"$folder/venv/bin/python" "$folder/see.py" 2> "$folder/said" || { cat "$folder/said" >&2; exit 1; }
