#!/usr/bin/env bash
# torch: without gradients, autocast still keeps a half-precision copy of every weight until it ends.
#
# Guess: an fp32 model under torch.no_grad() and torch.autocast(bfloat16) takes its weights and, for a
#        moment, one layer's copy.
# Seen:  the copies of weights that require a gradient are kept, as in training, although none is
#        wanted: half of the model once more. Under torch.inference_mode(), or after
#        model.requires_grad_(False), none is kept. model.eval() changes nothing.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q torch==2.13.0
cat > "$folder/see.py" <<'PYTHON'
import weakref

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

LAYERS, WIDE = 20, 512


class Copies(TorchDispatchMode):
    """Count the bytes of weights' copies in bfloat16 that live at once."""

    def __init__(self):
        super().__init__()
        self.known = {}
        self.peak = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        out = function(*args, **(kwargs or {}))
        if out.dtype is torch.bfloat16 and out.shape == (WIDE, WIDE):
            storage = out.untyped_storage()
            if storage._cdata not in self.known:
                weakref.finalize(storage, self.known.pop, storage._cdata)
            self.known[storage._cdata] = storage.nbytes()
            self.peak = max(self.peak, sum(self.known.values()))
        return out


def copies(guard, wanted):
    model = nn.Sequential(*(nn.Linear(WIDE, WIDE, bias=False) for _ in range(LAYERS))).eval()
    model.requires_grad_(wanted)
    with guard(), torch.autocast("cpu", torch.bfloat16), Copies() as counted:
        model(torch.ones(1, WIDE))
    return counted.peak / sum(one.nbytes for one in model.parameters())


print("torch", torch.__version__)
for guard, wanted, expected in (
    (torch.no_grad, True, LAYERS),
    (torch.no_grad, False, 1),
    (torch.inference_mode, True, 1),
):
    share = copies(guard, wanted)
    print(f"{guard.__name__}, weights that require a gradient {wanted}: copies of {share:.3f} of the model")
    assert share == expected / LAYERS / 2, share
PYTHON
"$folder/venv/bin/python" "$folder/see.py" 2> "$folder/said" || { cat "$folder/said" >&2; exit 1; }
