#!/usr/bin/env bash
# ema-pytorch: a checkpoint of the average holds the model that is averaged as well, and parameters() yields both.
#
# Guess: EMA(model).state_dict() is the average, as large as the model.
# Seen:  the model itself is a part of the EMA module: its weights are saved with the average, and once more with the
#        model. Whoever counts parameters() counts both, and an optimiser that is given ema.parameters() gets the
#        model's. include_online_model=False saves and yields the average alone.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q torch==2.13.0 ema-pytorch==0.8.3 numpy==2.4.6
cat > "$folder/see.py" <<'PYTHON'
import os
import sys
from importlib.metadata import version

import torch
from ema_pytorch import EMA

WIDE = 512
print(*(f"{name} {version(name)}" for name in ("torch", "ema-pytorch")))
model = torch.nn.Linear(WIDE, WIDE, bias=False)
path = os.path.join(sys.path[0], "average.pt")
for settings, copies in (({}, 2), ({"include_online_model": False}, 1)):
    average = EMA(model, **settings)
    average.update()
    torch.save(average.state_dict(), path)
    size, many = os.path.getsize(path), sum(one.numel() for one in average.parameters())
    print(f"EMA(model, {settings or ''}): {size:,} bytes saved, {many:,} parameters;",
          f"the model {model.weight.nbytes:,} and {model.weight.numel():,}")
    assert many == copies * model.weight.numel() and 0 < size - copies * model.weight.nbytes < 4096
PYTHON
"$folder/venv/bin/python" "$folder/see.py" 2> "$folder/said" || { cat "$folder/said" >&2; exit 1; }
