#!/usr/bin/env bash
# diffusers: an AutoencoderKL decodes one image channels-first, and two or more channels-last.
#
# Guess: how tensors lie in memory depends on the model and its settings; a batch of two takes what a
#        batch of one takes, twice.
# Seen:  attention in the middle of the decoder returns a transposed view. With one image its batch
#        stride happens to be that of a channels-first tensor; with two it is channels-last, and the
#        convolutions behind it are too. So cuDNN chooses other kernels with other scratch memory, and
#        one image tells little about two.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q torch==2.13.0 diffusers==0.42.1 transformers==5.23.0
cat > "$folder/see.py" <<'PYTHON'
from importlib.metadata import version

import torch
from diffusers import AutoencoderKL

print(*(f"{name} {version(name)}" for name in ("torch", "diffusers")))
vae = AutoencoderKL(
    block_out_channels=(32, 64), down_block_types=("DownEncoderBlock2D",) * 2,
    up_block_types=("UpDecoderBlock2D",) * 2, norm_num_groups=8, layers_per_block=2,
).eval()


def channels_last(images):
    """Return the convolutions of the decoder whose input lies channels-last."""
    seen = []

    def look(name):
        def hook(_module, inputs):
            one = inputs[0]
            if one.is_contiguous(memory_format=torch.channels_last) and not one.is_contiguous():
                seen.append(name)

        return hook

    hooks = [
        part.register_forward_pre_hook(look(name))
        for name, part in vae.decoder.named_modules()
        if isinstance(part, torch.nn.Conv2d)
    ]
    with torch.no_grad():
        vae.decode(torch.randn(images, 4, 16, 16))
    for one in hooks:
        one.remove()
    return seen


for images in (1, 2, 3):
    found = channels_last(images)
    print(f"{images} image(s): {len(found)} convolutions channels-last: {', '.join(found)}")
    assert bool(found) == (images > 1)
PYTHON
"$folder/venv/bin/python" "$folder/see.py" 2> "$folder/said" || { cat "$folder/said" >&2; exit 1; }
