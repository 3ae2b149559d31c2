#!/usr/bin/env bash
# kornia: a bilateral blur of 15 x 15 makes nine hundred images at once.
#
# Guess: a filter takes a few images of scratch, whatever its kernel, as Gaussian and box blurs do.
# Seen:  median and bilateral blurs and morphology lay out the neighbours of every pixel: an image for each of the
#        kernel's 225 pixels, and the bilateral four such at its peak, five where another image guides it.
#        image_histogram2d makes four images for each bin. In float32 an image of 1024 x 1024 is 12 MiB, and its
#        bilateral blur takes 10.6 GiB.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q torch==2.13.0 kornia==0.8.2
cat > "$folder/see.py" <<'PYTHON'
import weakref
from importlib.metadata import version

import torch
from kornia import enhance, filters, morphology
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

print(*(f"{name} {version(name)}" for name in ("torch", "kornia")))


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


IMAGE, SIDE = torch.rand(1, 3, 96, 96), 15
for name, call, low, high in (
    ("gaussian_blur2d", lambda: filters.gaussian_blur2d(IMAGE, (SIDE, SIDE), (3.0, 3.0)), 0, 5),
    ("box_blur", lambda: filters.box_blur(IMAGE, (SIDE, SIDE)), 0, 5),
    ("median_blur", lambda: filters.median_blur(IMAGE, SIDE), 225, 240),
    ("dilation", lambda: morphology.dilation(IMAGE, torch.ones(SIDE, SIDE)), 225, 280),
    ("bilateral_blur", lambda: filters.bilateral_blur(IMAGE, SIDE, 0.1, (1.0, 1.0)), 890, 920),
    ("joint_bilateral_blur", lambda: filters.joint_bilateral_blur(IMAGE, IMAGE, SIDE, 0.1, (1.0, 1.0)), 1110, 1150),
    ("image_histogram2d", lambda: enhance.image_histogram2d(IMAGE, n_bins=256), 4 * 256 - 1, 4 * 256 + 9),
):
    with torch.no_grad(), Counted() as counted:
        call()
    found = counted.peak / IMAGE.nbytes
    print(f"{name}: {found:.1f} images")
    assert low <= found <= high
PYTHON
"$folder/venv/bin/python" "$folder/see.py" 2> "$folder/said" || { cat "$folder/said" >&2; exit 1; }
