#!/usr/bin/env bash
# galore-torch, apollo-torch: on fp32 weights its state holds a whole square matrix for each layer, whatever its rank.
#
# Guess: a layer of 1024 x 1024 at rank 16 keeps 16 directions and two small moments: 5 % of a matrix, where Adam
#        keeps two.
# Seen:  in bfloat16 it does. In fp32 the 16 directions are a slice of all 1,024 of the singular value
#        decomposition, and the slice keeps them all: more than one matrix a layer, half of Adam's state, 22 times
#        what its shapes say. One that is saved is as large on disk. So it is with APOLLO where it projects by SVD.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q torch==2.13.0 transformers==5.23.0 bitsandbytes==0.50.2
"$folder/venv/bin/pip" install -q --no-deps galore-torch==1.0 apollo-torch==1.0.3
cat > "$folder/see.py" <<'PYTHON'
import io
from importlib.metadata import version

import torch
from apollo_torch import APOLLOAdamW
from galore_torch import GaLoreAdamW

RANK, WIDE = 16, 1024
print(*(f"{name} {version(name)}" for name in ("torch", "galore-torch", "apollo-torch")))


def tensors(value):
    """Return all tensors of an optimiser's state, those of its projector included."""
    if isinstance(value, torch.Tensor):
        return [value]
    if isinstance(value, dict):
        return [one for held in value.values() for one in tensors(held)]
    return tensors(vars(value)) if hasattr(value, "__dict__") else []


def state(build, dtype, **settings):
    """Return the state's bytes and those that its shapes say, in matrices, after a step; and of GaLore's file."""
    layer = torch.nn.Linear(WIDE, WIDE, bias=False, dtype=dtype)
    group = {"params": [layer.weight], "rank": RANK, "update_proj_gap": 200, "proj_type": "std", **settings}
    optimizer = build([group])
    layer(torch.randn(4, WIDE, dtype=dtype)).square().sum().backward()
    optimizer.step()
    found = tensors(optimizer.state[layer.weight])
    file = io.BytesIO()
    torch.save(optimizer.state[layer.weight].get("projector"), file)
    held = {one.untyped_storage()._cdata: one.untyped_storage().nbytes() for one in found}
    return [size / layer.weight.nbytes for size in (sum(held.values()), sum(one.nbytes for one in found), file.tell())]


for name, build, settings in (
    ("GaLore", GaLoreAdamW, {"scale": 0.25}),
    ("APOLLO", APOLLOAdamW, {"scale": 1, "proj": "svd", "scale_type": "channel"}),
):
    for dtype, directions in ((torch.bfloat16, RANK), (torch.float32, WIDE)):
        held, said, file = state(build, dtype, **settings)
        print(f"{name}, {dtype}: {held:.3f} matrices a layer, by its shapes {said:.3f}; its projector's file {file:.3f}")
        assert abs(said - 3 * RANK / WIDE) < 0.001 and abs(held - (directions + 2 * RANK) / WIDE) < 0.001
        assert abs(file - directions / WIDE) < 0.01
PYTHON
"$folder/venv/bin/python" "$folder/see.py" 2> "$folder/said" || { cat "$folder/said" >&2; exit 1; }
