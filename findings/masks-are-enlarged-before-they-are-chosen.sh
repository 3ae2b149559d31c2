#!/usr/bin/env bash
# transformers: SAM's masks are enlarged to the picture's size, in float32 and all at once, before most are thrown away.
#
# Guess: the masks of a batch of points are 256 x 256; those that are kept are enlarged, one by one, or as true and false.
# Seen:  all become 1,024 x 1,024, then the picture's size, in float32, and only then are they judged. The pipeline
#        "mask-generation" does so on the model's device with 64 points at a time, three masks each: for a photograph
#        of 4000 x 3000 that is 9.3 GiB, for a model of 0.4 to 2.4. Asked for true and false, a quarter is added.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q torch==2.13.0 transformers==5.23.0 numpy==2.4.6 pillow==13.0.0
cat > "$folder/see.py" <<'PYTHON'
import inspect
import weakref
from importlib.metadata import version

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers import MaskGenerationPipeline, SamImageProcessorPil

POINTS, EACH = 4, 3
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


process = SamImageProcessorPil()
masks = torch.randn(POINTS, EACH, 256, 256)
for high, wide in ((768, 1024), (3000, 4000)):
    for asked in (False, True):
        with Counted() as counted:
            out = process.post_process_masks([masks], [[high, wide]], [[768, 1024]], binarize=asked)
        first, last = 4 * 1024 * 1024, 4 * high * wide
        found = counted.peak / (POINTS * EACH)
        print(f"{wide} x {high}, {'true and false' if asked else 'numbers'}: {found / 2**20:.1f} MiB a mask, at rest",
              f"{counted.now / (POINTS * EACH) / 2**20:.1f}, in {out[0].dtype}")
        assert abs(found - max(first + last, asked and last + last // 4)) < 2**16
        assert out[0].shape == (POINTS, EACH, high, wide)
        del out
batch = inspect.signature(MaskGenerationPipeline.preprocess).parameters["points_per_batch"].default
code = inspect.getsource(MaskGenerationPipeline._forward)
print(f"the pipeline: {batch} points at once, {batch * EACH * 4 * 3000 * 4000 / 2**30:.1f} GiB for 4000 x 3000,",
      f"{batch * EACH * 2**22 / 2**30:.2f} beside them")
assert batch == 64 and code.index("post_process_masks") < code.index("filter_masks") and "binarize=False" in code
PYTHON
"$folder/venv/bin/python" "$folder/see.py" 2> "$folder/said" || { cat "$folder/said" >&2; exit 1; }
