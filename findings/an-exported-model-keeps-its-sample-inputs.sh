#!/usr/bin/env bash
# torch: torch.export.save writes the inputs that a model was traced with into the file, beside its weights.
#
# Guess: an exported model's file holds its graph and weights; of the example it keeps the shapes.
# Seen:  the tensors that torch.export.export was given are in it, whole, and loaded with it. A small model traced
#        with a large batch makes a large file: a Linear of 256 kB that was shown a batch of 65,536 rows one of 64
#        MiB. With its example_inputs set to None nothing of them is written, and it loads as before.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q torch==2.13.0 numpy==2.4.6
cat > "$folder/see.py" <<'PYTHON'
import os
import sys
from importlib.metadata import version

import torch

WIDE, ROWS = 256, 65_536
print(f"torch {version('torch')}")
path = os.path.join(sys.path[0], "model.pt2")
model = torch.nn.Linear(WIDE, WIDE, bias=False)
for rows, kept in ((2, True), (ROWS, True), (ROWS, False)):
    given = torch.zeros(rows, WIDE)
    exported = torch.export.export(model, (given,), dynamic_shapes=({0: torch.export.Dim("rows", max=10**6)},))
    if not kept:
        exported.example_inputs = None
    torch.export.save(exported, path)
    size, loaded = os.path.getsize(path), torch.export.load(path).example_inputs
    print(f"{rows:,} rows, {'kept' if kept else 'taken away'}: {size:,} bytes, weights {model.weight.nbytes:,},",
          f"inputs {given.nbytes:,}; loaded with it: {loaded and tuple(loaded[0][0].shape)}")
    extra = size - model.weight.nbytes - (given.nbytes if kept else 0)
    assert 0 < extra < 65_536 and (loaded is not None) == kept
PYTHON
"$folder/venv/bin/python" "$folder/see.py" 2> "$folder/said" || { cat "$folder/said" >&2; exit 1; }
