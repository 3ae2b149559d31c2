#!/usr/bin/env bash
# transformers: Pixtral's images are told from each other by one square mask over the patches of all of them.
#
# Guess: images of one call are encoded each by itself, and ten take ten times the memory of one.
# Seen:  their patches are joined into one sequence, in which a mask of all patches x all patches keeps them apart. It
#        grows with the square of the number of images: ten of 1024 x 1024 (4,096 patches each, Mistral Small's vision
#        tower too) make 3.1 GiB in bfloat16, one 32 MiB. Called one by one, no image needs any.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q torch==2.13.0 transformers==5.23.0
cat > "$folder/see.py" <<'PYTHON'
import weakref
from importlib.metadata import version

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers import PixtralVisionConfig, PixtralVisionModel

SIDE, PATCH = 384, 16
print(*(f"{name} {version(name)}" for name in ("torch", "transformers")))


class Counted(TorchDispatchMode):
    """Count the bytes of storages that appear while it is on, until they are freed."""

    def __init__(self):
        super().__init__()
        self.known, self.now, self.peak = {}, 0, 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.note(tree_leaves((args, kwargs)), new=False)
        out = function(*args, **(kwargs or {}))
        self.note(tree_leaves(out), new=True)
        return out

    def note(self, values, new):
        for one in values:
            if isinstance(one, torch.Tensor) and one.untyped_storage()._cdata not in self.known:
                storage = one.untyped_storage()
                self.known[storage._cdata] = storage.nbytes() if new else 0
                self.now += self.known[storage._cdata]
                self.peak = max(self.peak, self.now)
                weakref.finalize(storage, self.freed, storage._cdata)

    def freed(self, which):
        self.now -= self.known.pop(which, 0)


model = PixtralVisionModel(
    PixtralVisionConfig(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64, image_size=SIDE,
        patch_size=PATCH,
    )
).to(torch.bfloat16).eval()
assert model.config._attn_implementation == "sdpa"
seen = []
model.transformer.register_forward_pre_hook(
    lambda layer, given, named: seen.extend(one for one in (*given, *named.values()) if getattr(one, "ndim", 0) == 4),
    with_kwargs=True,
)
peaks = []
for images in (1, 2, 8):
    patches = images * (SIDE // PATCH) ** 2
    seen.clear()
    pixels = torch.zeros(images, 3, SIDE, SIDE, dtype=torch.bfloat16)
    with torch.no_grad(), Counted() as counted:
        model(pixel_values=pixels, image_sizes=[(SIDE, SIDE)] * images)
    (mask,) = seen
    peaks.append(counted.peak)
    print(f"{images} images: mask {tuple(mask.shape)} {mask.dtype}, {counted.peak / 2**20:.1f} MiB at the peak")
    assert mask.shape[-2:] == (patches, patches) and mask.untyped_storage().nbytes() >= 2 * patches * patches
assert peaks[2] > 15 * peaks[0]
PYTHON
"$folder/venv/bin/python" "$folder/see.py" 2> "$folder/said" || { cat "$folder/said" >&2; exit 1; }
