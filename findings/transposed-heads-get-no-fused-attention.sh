#!/usr/bin/env bash
# torch, transformers: SDPA has no fused kernel for operands that are transposed along their heads (Florence-2).
#
# Guess: a fused kernel takes any strides, or copies what it cannot take; attn_implementation="sdpa" means that no scores
#        are written out.
# Seen:  where neighbours along the last side are not neighbours in memory, torch chooses plain attention without a word,
#        and one .contiguous() of each operand brings the fused kernel back. Florence-2's vision tower attends over
#        channels in every second block, with heads that are permuted views: not one of those calls is fused, and each
#        takes more than two times its query where one over pixels takes it once, for the result.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q torch==2.13.0 transformers==5.23.0
cat > "$folder/see.py" <<'PYTHON'
import weakref
from importlib.metadata import version

import torch
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers import Florence2VisionConfig
from transformers.models.florence2.modeling_florence2 import Florence2VisionBackbone

print(*(f"{name} {version(name)}" for name in ("torch", "transformers")))
PLAIN, attend = 0, functional.scaled_dot_product_attention
chosen, by_hand = {}, False


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


def watched(query, key, value, *args, **kwargs):
    kind = "over channels" if query.stride(-1) != 1 else "over pixels"
    if kind == "over channels":
        operands = [one.contiguous() for one in (query, key, value)]
        chosen.setdefault("over channels, copied", set()).add(torch._fused_sdp_choice(*operands) != PLAIN)
    chosen.setdefault(kind, set()).add(torch._fused_sdp_choice(query, key, value) != PLAIN)
    with Counted() as counted:
        out = attend(query, key, value, *args, **kwargs)
    taken.setdefault(kind, []).append(counted.peak / (query.numel() * query.element_size()))
    return out


taken = {}
config = Florence2VisionConfig()
config._attn_implementation = "sdpa"
model = Florence2VisionBackbone(config).eval()
functional.scaled_dot_product_attention = watched
with torch.no_grad():
    model(torch.zeros(1, 3, 384, 384))
for kind, fused in chosen.items():
    print(f"{kind}: fused in {fused}")
for kind, times in taken.items():
    print(f"{kind}: at most {max(times):.1f} times its query beside what it is given, at least {min(times):.1f}")
assert chosen == {"over pixels": {True}, "over channels": {False}, "over channels, copied": {True}}
assert max(taken["over pixels"]) < 1.1 and min(taken["over channels"]) >= 2
PYTHON
"$folder/venv/bin/python" "$folder/see.py" 2> "$folder/said" || { cat "$folder/said" >&2; exit 1; }
