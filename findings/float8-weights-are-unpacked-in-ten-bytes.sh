#!/usr/bin/env bash
# torchao: a weight in float8 takes one byte at rest, and ten more in every call.
#
# Guess: a weight of one byte is made bfloat16 for its product, two bytes more, or multiplied as it is.
# Seen:  Float8WeightOnlyConfig, uncompiled, casts the whole weight to float32, scales it in a second such tensor, and
#        casts that to bfloat16 while both are there: 10 bytes a weight, whatever the batch: 4.9 GiB for the head of
#        Llama 3.1 8B, which is 1 GiB in bfloat16. Int8WeightOnlyConfig takes the two bytes of the guess, and scales
#        the result.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q torch==2.13.0 torchao==0.18.0
cat > "$folder/see.py" <<'PYTHON'
import weakref
from importlib.metadata import version

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torchao.quantization import Float8WeightOnlyConfig, Int8WeightOnlyConfig, quantize_

IN, OUT, HALF = 512, 2048, torch.bfloat16
print(*(f"{name} {version(name)}" for name in ("torch", "torchao")))


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


peaks = {}
for name, config in (
    ("bfloat16", None), ("Float8WeightOnly", Float8WeightOnlyConfig()), ("Int8WeightOnly", Int8WeightOnlyConfig()),
):
    model = torch.nn.Sequential(torch.nn.Linear(IN, OUT, bias=False)).to(HALF)
    if config is not None:
        quantize_(model, config)
    for rows in (1, 2048):
        with torch.no_grad(), Counted() as counted:
            model(torch.ones(rows, IN, dtype=HALF))
        peaks[name, rows] = counted.peak
        print(f"{name}, {rows} rows: {counted.peak / (IN * OUT):.2f} bytes a weight,",
              f"{counted.peak / (rows * OUT):.2f} an output")
assert peaks["bfloat16", 2048] / (2048 * OUT) < 3 and peaks["bfloat16", 1] < 0.1 * IN * OUT
assert abs(peaks["Float8WeightOnly", 1] / (IN * OUT) - 10) < 0.1
assert abs(peaks["Int8WeightOnly", 1] / (IN * OUT) - 2) < 0.1
print(f"the head of Llama 3.1 8B in float8: {128_256 * 4096 * 10 / 2**30:.1f} GiB")
PYTHON
"$folder/venv/bin/python" "$folder/see.py" 2> "$folder/said" || { cat "$folder/said" >&2; exit 1; }
