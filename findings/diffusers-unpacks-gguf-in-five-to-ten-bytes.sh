#!/usr/bin/env bash
# diffusers: a layer in 4 or 5 bits of GGUF is unpacked in 5 to 10 bytes a weight, at each call.
#
# Guess: a packed layer takes its weight in bfloat16 beside it for as long as it computes: 2 bytes a weight.
# Seen:  without the kernels that must be installed and asked for, the steps of unpacking stand beside each other: 4
#        bytes a weight for Q8_0 and Q4_0, 5.2 for Q4_K, 5.1 for Q6_K, 7.2 for Q5_K, and 10 for Q5_0, whose fifth bits
#        pass through int32. FLUX.1's widest layer (3072 to 21504) takes 630 MiB in Q5_0, not 126.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q torch==2.13.0 transformers==5.23.0 accelerate==1.15.0 diffusers==0.42.1 gguf==0.19.0
cat > "$folder/see.py" <<'PYTHON'
import weakref
from importlib.metadata import version

import torch
from diffusers.quantizers.gguf.utils import GGUFLinear, GGUFParameter
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

ROWS, COLUMNS, HALF = 512, 2048, torch.bfloat16
print(*(f"{name} {version(name)}" for name in ("torch", "diffusers", "gguf")))


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


for name, expected in (("Q8_0", 4), ("Q4_0", 4), ("Q4_K", 5.2), ("Q6_K", 5.1), ("Q5_K", 7.2), ("Q5_0", 10)):
    kind = GGMLQuantizationType[name]
    block, size = GGML_QUANT_SIZES[kind]
    layer = GGUFLinear(COLUMNS, ROWS, bias=False, compute_dtype=HALF)
    layer.weight = GGUFParameter(torch.zeros(ROWS, COLUMNS // block * size, dtype=torch.uint8), quant_type=kind)
    with torch.no_grad(), Counted() as counted:
        layer(torch.ones(1, COLUMNS, dtype=HALF))
    found = counted.peak / (ROWS * COLUMNS)
    print(f"{name}: {size / block:.2f} bytes a weight at rest, {found:.2f} beside it in a call;",
          f"FLUX.1's widest layer {found * 3072 * 21504 / 2**20:,.0f} MiB")
    assert abs(found - expected) < 0.15
PYTHON
"$folder/venv/bin/python" "$folder/see.py" 2> "$folder/said" || { cat "$folder/said" >&2; exit 1; }
