#!/usr/bin/env bash
# torchmetrics: the overlap of two label maps takes 24 bytes for each pixel and class, not a few for each pixel.
#
# Guess: of labels, pairs are counted: a few bytes a pixel, and a table of classes x classes.
# Seen:  JaccardIndex does so, 16 bytes a pixel. MeanIoU and DiceScore, which count the same, write both maps out as
#        rows of zeros and a one in int64 first, and once more what is common to them: 24 bytes a pixel for each class.
#        One picture of 1024 x 1024 with the 150 classes of ADE20K takes 3.5 GiB, on the device if the labels are there.
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
from torchmetrics import JaccardIndex
from torchmetrics.segmentation import DiceScore, MeanIoU

print(*(f"{name} {version(name)}" for name in ("torch", "torchmetrics")))
SIDE = 256

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


torch.manual_seed(0)
for classes in (21, 150):
    one, other = torch.randint(classes, (2, 1, SIDE, SIDE))
    for metric, low, high in (
        (MeanIoU(num_classes=classes, input_format="index"), 24, 25),
        (DiceScore(num_classes=classes, input_format="index"), 24, 25),
        (JaccardIndex(task="multiclass", num_classes=classes), 0, 2),
    ):
        with Counted() as counted:
            metric.update(one, other)
        pixel = counted.peak / SIDE**2
        print(f"{type(metric).__name__}, {classes} classes: {pixel:,.0f} bytes a pixel, {pixel / classes:.1f} a class;",
              f"{pixel / 2**10:.2f} GiB for 1024 x 1024")
        assert low <= pixel / classes <= high
PYTHON
"$folder/venv/bin/python" "$folder/see.py" 2> "$folder/said" || { cat "$folder/said" >&2; exit 1; }
