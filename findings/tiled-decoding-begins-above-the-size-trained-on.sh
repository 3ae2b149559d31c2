#!/usr/bin/env bash
# diffusers: enable_tiling() saves nothing at 1024 x 1024 with the VAEs of FLUX.1, SD 3 and SDXL.
#
# Guess: a VAE that is told to tile decodes in tiles, and at 1024 x 1024 takes a fraction of the memory.
# Seen:  a tile is the size that the checkpoint's config calls its own (sample_size): 1024 for these three, 512 for SD
#        1.5, and what fits in one is decoded at once. Nothing says so. Just above it, 1088 x 1088 is decoded as one
#        whole tile of 1024 and three strips: 0.9 of the memory. SD 1.5's VAE decodes 1024 x 1024 in nine tiles, of
#        half of it.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q torch==2.13.0 transformers==5.23.0 diffusers==0.42.1
cat > "$folder/see.py" <<'PYTHON'
import weakref
from importlib.metadata import version

import torch
from diffusers import AutoencoderKL
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

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


for name, size in (("FLUX.1, SD 3, SDXL", 1024), ("SD 1.5", 512)):
    model = AutoencoderKL(
        block_out_channels=(4, 4, 4, 4), down_block_types=("DownEncoderBlock2D",) * 4, layers_per_block=1,
        up_block_types=("UpDecoderBlock2D",) * 4, norm_num_groups=4, latent_channels=4, sample_size=size,
        mid_block_add_attention=False,
    ).eval()
    tiles = []
    model.decoder.register_forward_pre_hook(lambda layer, given: tiles.append(tuple(given[0].shape[-2:])))
    for side in (512, 1024) if size == 512 else (1024, 1088, 1536):
        peaks = []
        for switch in (model.disable_tiling, model.enable_tiling):
            switch()
            tiles.clear()
            with torch.no_grad(), Counted() as counted:
                model.decode(torch.zeros(1, 4, side // 8, side // 8))
            peaks.append(counted.peak)
        print(f"{name}, {side} x {side}: {len(tiles)} tiles, {peaks[1] / peaks[0]:.2f} of the memory")
        if side <= size:
            assert len(tiles) == 1 and peaks[0] == peaks[1]
        elif side == 1088 and size == 1024:
            assert len(tiles) == 4 and tiles[0] == (128, 128) and peaks[1] > 0.85 * peaks[0]
        else:
            assert len(tiles) == (9 if size == 512 else 4) and peaks[1] < 0.55 * peaks[0]
PYTHON
"$folder/venv/bin/python" "$folder/see.py" 2> "$folder/said" || { cat "$folder/said" >&2; exit 1; }
