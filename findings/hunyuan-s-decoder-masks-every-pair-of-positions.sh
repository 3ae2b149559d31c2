#!/usr/bin/env bash
# diffusers: HunyuanVideo's VAE writes down which of its positions may see which: 9 GiB at 960 x 544, untiled.
#
# Guess: that a frame sees no later one is a matter of convolutions; attention in the middle has no mask.
# Seen:  it is given one of all positions x all positions of five latent frames, the batch that frames are decoded in:
#        made in float32 (5 bytes a pair with what it is made from), then cast (6 in half precision), although a number
#        for each pair of frames would say the same. At 960 x 544 there are 40,800 positions: 9.3 GiB for a moment, 3.1
#        through the attention; at 1280 x 720 29 GiB. enable_tiling() bounds it by a tile's 5,120 positions, 0.15 GiB.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q torch==2.13.0 diffusers==0.42.1
cat > "$folder/see.py" <<'PYTHON'
import weakref
from importlib.metadata import version

import torch
from diffusers import AutoencoderKLHunyuanVideo
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

WIDE, FRAMES = 32, 5
print(*(f"{name} {version(name)}" for name in ("torch", "diffusers")))


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


model = AutoencoderKLHunyuanVideo(block_out_channels=(WIDE,) * 4, layers_per_block=1).eval()
frames = model.tile_sample_min_num_frames // model.temporal_compression_ratio + 1
side = model.tile_sample_min_height // model.spatial_compression_ratio
print(f"decoded {frames} latent frames at once: {model.use_framewise_decoding}; a tile is {side} x {side}")
assert (frames, side, model.use_framewise_decoding, model.use_tiling) == (FRAMES, 32, True, False)
for dtype, least in ((torch.float32, 5), (torch.bfloat16, 6)):
    middle = model.decoder.mid_block.to(dtype)
    for high, wide in ((16, 32), (32, 32)):
        positions = FRAMES * high * wide
        with torch.no_grad(), Counted() as counted:
            middle(torch.zeros(1, WIDE, FRAMES, high, wide, dtype=dtype))
        found = counted.peak / positions**2
        print(f"{dtype}, {FRAMES} x {high} x {wide}: {positions:,} positions, {found:.2f} bytes a pair")
        assert least <= found < least + 0.2
for high, wide in ((544, 960), (720, 1280), (256, 256)):
    positions = FRAMES * (high // 8) * (wide // 8)
    print(f"{wide} x {high}: {positions:,} positions, {6 * positions**2 / 2**30:.2f} GiB")
PYTHON
"$folder/venv/bin/python" "$folder/see.py" 2> "$folder/said" || { cat "$folder/said" >&2; exit 1; }
