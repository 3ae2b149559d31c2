#!/usr/bin/env bash
# torchmetrics: the structural similarity of two images takes 23 times one of them.
#
# Guess: five filtered images (both, their squares, their product): five times an image, or ten.
# Seen:  both are padded by reflection, the five are made and joined, filtered and taken apart, and the formula's terms
#        stand beside them: 23 images at once. One pair in 4K, 3840x2160, wants 2.2 GiB, on the device if the images are
#        there; the multi-scale form as much, the peak signal-to-noise ratio wants two images.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q torch==2.13.0 torchmetrics==1.9.0
cat > "$folder/see.py" <<'PYTHON'
import weakref
from importlib.metadata import version

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torchmetrics.image import (
    MultiScaleStructuralSimilarityIndexMeasure, PeakSignalNoiseRatio, StructuralSimilarityIndexMeasure,
)

print(*(f"{name} {version(name)}" for name in ("torch", "torchmetrics")))
SIDE = 512


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


one, other = torch.rand(2, 1, 3, SIDE, SIDE)
for metric, low, high in (
    (StructuralSimilarityIndexMeasure(data_range=1.0), 22, 25),
    (MultiScaleStructuralSimilarityIndexMeasure(data_range=1.0), 22, 25),
    (PeakSignalNoiseRatio(data_range=1.0), 0, 3),
):
    with Counted() as counted:
        metric.update(one, other)
    times = counted.peak / one.nbytes
    print(f"{type(metric).__name__}: {times:.1f} images, {times * 3840 * 2160 * 12 / 2**30:.2f} GiB for a pair in 4K")
    assert low < times < high
PYTHON
"$folder/venv/bin/python" "$folder/see.py" 2> "$folder/said" || { cat "$folder/said" >&2; exit 1; }
