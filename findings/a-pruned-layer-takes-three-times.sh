#!/usr/bin/env bash
# torch: a layer pruned to a half takes three times its memory, and a count of parameters finds one of the three.
#
# Guess: the weights and a mask of a byte each: 1.25 times.
# Seen:  the weights as they were (weight_orig), a mask in their own dtype, and their product, which each call makes
#        anew and leaves at the layer until the next: 3 times. The product is neither a parameter nor a buffer, so that
#        no count of either and no state_dict has it, and half() leaves it as it is until the next call. prune.remove
#        makes one of the three; zeros take what numbers take.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q torch==2.13.0
cat > "$folder/see.py" <<'PYTHON'
from importlib.metadata import version

import torch
from torch.nn.utils import prune

print(f"torch {version('torch')}")
WIDE = 512
layer = torch.nn.Linear(WIDE, WIDE, bias=False)
true = layer.weight.nbytes


def held(layer):
    """Return the bytes of tensors at a layer, those among its parameters, and those in its state_dict."""
    named = [*layer.parameters(), *layer.buffers()]
    rest = [one for one in vars(layer).values() if isinstance(one, torch.Tensor)]
    all_of = {one.untyped_storage().data_ptr(): one.untyped_storage().nbytes() for one in (*named, *rest)}
    return (sum(all_of.values()) / true, sum(one.nbytes for one in layer.parameters()) / true,
            sum(one.nbytes for one in layer.state_dict().values()) / true)


def show(name, expected):
    found = held(layer)
    print(f"{name}: {found[0]:g} times the weights; as parameters {found[1]:g}, in a state_dict {found[2]:g}")
    assert found == expected


show("as it is made", (1, 1, 1))
prune.l1_unstructured(layer, "weight", amount=0.5)
assert layer.weight_mask.dtype == layer.weight_orig.dtype == torch.float32
with torch.inference_mode():
    layer(torch.zeros(1, WIDE))
show("half of it pruned", (3, 1, 2))
layer.half()
show("in half precision", (2, 0.5, 1))
assert layer.weight.dtype == torch.float32
prune.remove(layer, "weight")
show("pruned for good", (0.5, 0.5, 0.5))
PYTHON
"$folder/venv/bin/python" "$folder/see.py" 2> "$folder/said" || { cat "$folder/said" >&2; exit 1; }
