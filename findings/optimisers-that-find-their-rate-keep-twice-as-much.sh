#!/usr/bin/env bash
# prodigyopt, dadaptation: an optimiser that finds its own learning rate keeps up to twice Adam's state.
#
# Guess: it is Adam with a number for the rate: two states a parameter, and a few scalars.
# Seen:  Prodigy keeps four (where the parameter started, and a running sum of gradients, both in full, in the
#        parameter's dtype): 16 bytes a parameter in float32 for Adam's 8. D-Adaptation keeps three of Adam, and three
#        of SGD, which has one with momentum. Prodigy's slice_p=11 keeps every eleventh number of the two more.
#        Schedule-free AdamW keeps two, and four as it is published to be read (AdamWScheduleFreeReference).
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q torch==2.13.0 prodigyopt==1.1.2 dadaptation==3.2 schedulefree==1.4.1
cat > "$folder/see.py" <<'PYTHON'
from importlib.metadata import version

import torch
from dadaptation import DAdaptAdam, DAdaptLion, DAdaptSGD
from prodigyopt import Prodigy
from schedulefree import AdamWScheduleFree, AdamWScheduleFreeReference

print(*(f"{name} {version(name)}" for name in ("torch", "prodigyopt", "dadaptation", "schedulefree")))
MANY = 11_000
for kind, settings, expected in (
    (torch.optim.AdamW, {}, 2), (Prodigy, {}, 4), (Prodigy, {"slice_p": 11}, 2 + 2 / 11), (DAdaptAdam, {}, 3),
    (DAdaptSGD, {}, 3), (DAdaptLion, {}, 2), (AdamWScheduleFree, {}, 2), (AdamWScheduleFreeReference, {}, 4),
):
    weight = torch.nn.Parameter(torch.ones(MANY))
    optimiser = kind([weight], **settings)
    if hasattr(optimiser, "train"):
        optimiser.train()
    for _ in range(3):
        weight.grad = torch.ones_like(weight)
        optimiser.step()
    state = optimiser.state[weight].items()
    held = {name: one for name, one in state if isinstance(one, torch.Tensor) and one.numel() > 1}
    found = sum(one.untyped_storage().nbytes() for one in held.values()) / (4 * MANY)
    print(f"{kind.__name__} {settings or ''}: {found:.2f} numbers a parameter: {', '.join(held)}")
    assert abs(found - expected) < 0.01
PYTHON
"$folder/venv/bin/python" "$folder/see.py" 2> "$folder/said" || { cat "$folder/said" >&2; exit 1; }
