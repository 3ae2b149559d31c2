#!/usr/bin/env bash
# pytorch-optimizer: SOAP and Shampoo keep two squares of the long side of each LoRA matrix: 12 GiB for one of 26 MiB.
#
# Guess: their state is a few times what is trained: a handful of megabytes for an adapter.
# Seen:  a matrix of 16 x 4,096 has squares of 16 and of 4,096, and what they are turned by: all sides up to 10,000 are
#        treated so by default. A LoRA of rank 16 on queries and values of Llama 3.1 8B, 6.8 million parameters, gets 12.2
#        GiB of SOAP's state in fp32 where Adam's is 52 MiB, nearly as much as the model in bfloat16. SPlus keeps
#        as much, Kron half of it. With max_precondition_dim=1024 it is small, as on ordinary matrices six numbers a
#        parameter.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q torch==2.13.0 pytorch-optimizer==4.1.0
cat > "$folder/see.py" <<'PYTHON'
from importlib.metadata import version

import pytorch_optimizer
import torch

LONG, RANK = 512, 8
print(*(f"{name} {version(name)}" for name in ("torch", "pytorch-optimizer")))


def numbers(state):
    """Return how many numbers an optimiser's state holds."""
    if torch.is_tensor(state):
        return state.numel()
    if isinstance(state, dict):
        state = list(state.values())
    if not isinstance(state, list | tuple):
        state = list(vars(state).values()) if hasattr(state, "__dict__") else []
    return sum(map(numbers, state))


def kept(name, *shape, **settings):
    """Return the numbers of state that are kept for each parameter of one matrix."""
    weight = torch.nn.Parameter(torch.randn(*shape))
    optimizer = getattr(pytorch_optimizer, name)([weight], lr=1e-3, **settings)
    for _ in range(2):
        weight.grad = torch.randn(*shape)
        optimizer.step()
    return sum(map(numbers, optimizer.state.values())) / weight.numel()


for name, squares, moments in (("SOAP", 2, 2), ("Shampoo", 2, 1), ("SPlus", 2, 2), ("Kron", 1, 1)):
    for shape in ((RANK, LONG), (LONG, RANK)):
        found = kept(name, *shape)
        print(f"{name}, {shape[0]} x {shape[1]}: {found:.1f} numbers a parameter")
        assert abs(found - moments - squares * (LONG**2 + RANK**2) / (LONG * RANK)) < 0.1
square, bounded = kept("SOAP", LONG, LONG), kept("SOAP", RANK, LONG, max_precondition_dim=256)
print(f"SOAP, {LONG} x {LONG}: {square:.1f}; {RANK} x {LONG} with max_precondition_dim=256: {bounded:.1f}")
assert abs(square - 6) < 0.1 and bounded < 2.1
sides = [(16, 4096), (4096, 16), (16, 4096), (1024, 16)]
trained = 32 * sum(a * b for a, b in sides)
state = 32 * sum(2 * a * b + 2 * (a * a + b * b) for a, b in sides)
print(f"rank 16 on queries and values of Llama 3.1 8B: {trained:,} parameters, {4 * state / 2**30:.1f} GiB of SOAP's",
      f"state, {8 * trained / 2**20:.0f} MiB of Adam's")
PYTHON
"$folder/venv/bin/python" "$folder/see.py" 2> "$folder/said" || { cat "$folder/said" >&2; exit 1; }
