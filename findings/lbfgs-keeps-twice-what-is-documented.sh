#!/usr/bin/env bash
# torch: LBFGS keeps twice the memory that its documentation says.
#
# Guess: parameters x (history_size + 1), as the documentation says: 101 times the model.
# Seen:  the history holds two vectors of the whole model for each step, what was stepped and how the gradient changed,
#        and beside it stay a direction and the gradient before: 2 x (history_size + 1). The 202 times are there after a
#        hundred inner iterations, in the sixth step of twenty, which is the default.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q torch==2.13.0
cat > "$folder/see.py" <<'PYTHON'
from importlib.metadata import version

import torch
from torch.utils._pytree import tree_leaves

print(f"torch {version('torch')}")
assert "param_bytes * (history_size + 1)" in torch.optim.LBFGS.__doc__
MANY = 10_000
torch.manual_seed(0)
target, slope = torch.randn(MANY), torch.rand(MANY) * 5 + 0.1
for history in (10, 100):
    weight = torch.nn.Parameter(torch.randn(MANY))
    optimiser = torch.optim.LBFGS([weight], lr=0.01, history_size=history, tolerance_change=0, tolerance_grad=0)

    def loss():
        optimiser.zero_grad()
        one = ((weight - target).square() * slope).sum() + 0.01 * weight.pow(4).sum()
        one.backward()
        return one

    for step in range(1, 8):
        optimiser.step(loss)
        kept = {one.untyped_storage().data_ptr(): one.untyped_storage().nbytes()
                for one in tree_leaves(dict(optimiser.state)) if torch.is_tensor(one)}
        times = sum(kept.values()) / (MANY * weight.element_size())
        print(f"history_size {history}, step {step}: {times:.2f} times the parameters; documented {history + 1}")
    assert 2 * (history + 1) <= times < 2 * (history + 1) + 0.1
PYTHON
"$folder/venv/bin/python" "$folder/see.py" 2> "$folder/said" || { cat "$folder/said" >&2; exit 1; }
