#!/usr/bin/env bash
# torch, transformers: Adafactor hardly saves memory on convolutions, and a UNet is made of them.
#
# Guess: Adafactor keeps a row and a column per weight instead of Adam's two numbers per parameter, so
#        its state is next to nothing for any model.
# Seen:  rows and columns are those of the last two dimensions, which are a kernel's height and width: a
#        3x3 convolution keeps 2/3 of a number per parameter, a 1x1 convolution two, as many as Adam.
#        For the UNet of Stable Diffusion 1.5 that is 1,746 MiB in fp32, more than the 1,639 MiB of an
#        Adam in 8 bits (without its scales). torch's and transformers' Adafactor do the same.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q torch==2.13.0 transformers==5.23.0 diffusers==0.42.1
cat > "$folder/see.py" <<'PYTHON'
from importlib.metadata import version

import torch
from diffusers import UNet2DConditionModel
from transformers import Adafactor

print(*(f"{name} {version(name)}" for name in ("torch", "transformers", "diffusers")))
KINDS = {
    "torch": lambda weights: torch.optim.Adafactor(weights),
    "transformers": lambda weights: Adafactor(weights, lr=1e-3, relative_step=False, scale_parameter=False),
}


def kept(kind, shape):
    """Return how many numbers the state of one weight holds after a step, its counters aside."""
    weight = torch.nn.Parameter(torch.ones(shape))
    optimizer = KINDS[kind]([weight])
    weight.grad = torch.ones(shape)
    optimizer.step()
    state = optimizer.state[weight].values()
    return sum(one.numel() for one in state if isinstance(one, torch.Tensor) and one.ndim)


with torch.device("meta"):
    unet = UNet2DConditionModel(cross_attention_dim=768)  # the defaults are those of 1.5
weights = list(unet.parameters())
many = sum(one.numel() for one in weights)
for kind in KINDS:
    for shape, expected in (((1280, 1280), 0.0016), ((64, 64, 3, 3), 0.6667), ((64, 32, 1, 1), 2.0)):
        share = kept(kind, shape) / torch.Size(shape).numel()
        print(f"{kind}: {shape}: {share:.4f} numbers a parameter")
        assert abs(share - expected) < 1e-3, share
    shapes = {one.shape for one in weights if one.ndim == 4 and one.numel() < 200_000}
    for shape in shapes:  # the rule that the sum below uses, on shapes of the UNet's own
        assert kept(kind, shape) == torch.Size(shape).numel() * (1 / shape[-1] + 1 / shape[-2])
state = sum(
    one.numel() // one.shape[-1] + one.numel() // one.shape[-2] if one.ndim > 1 else one.numel()
    for one in weights
)
print(f"SD 1.5's UNet: {many:,} parameters, {state:,} numbers: {state * 4 / 2**20:,.0f} MiB;",
      f"8-bit Adam {many * 2 / 2**20:,.0f} MiB")
assert state * 4 > many * 2
PYTHON
"$folder/venv/bin/python" "$folder/see.py" 2> "$folder/said" || { cat "$folder/said" >&2; exit 1; }
