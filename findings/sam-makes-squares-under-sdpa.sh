#!/usr/bin/env bash
# transformers: SAM's image encoder makes tokens x tokens for every head, also with SDPA.
#
# Guess: with attn_implementation="sdpa" scores are never written out, as in any other vision transformer.
# Seen:  its positions are relative, in two parts (rows and columns): their sum is made in full for every head, and
#        made once more to lay it out as SDPA's mask. For the 16 heads of ViT-H and 4,096 tokens (every image is
#        brought to 1024 x 1024) that is 2 GiB in float32 in each of its four global layers. DINOv2 takes a twentieth
#        at as many tokens.
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
from transformers import Dinov2Config, Dinov2Model, SamVisionConfig, SamVisionModel

print(*(f"{name} {version(name)}" for name in ("torch", "transformers")))
HEADS, PATCH = 4, 16
SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": HEADS, "patch_size": PATCH}


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


for side in (512, 768):
    found, tokens = {}, (side // PATCH) ** 2
    for name, kind, config in (
        ("SAM", SamVisionModel, SamVisionConfig(
            **SMALL, image_size=side, global_attn_indexes=[1], output_channels=16, mlp_dim=64,
        )),
        ("DINOv2", Dinov2Model, Dinov2Config(**SMALL, image_size=side)),
    ):
        model = kind._from_config(config, attn_implementation="sdpa").eval()
        with torch.no_grad(), Counted() as counted:
            model(torch.zeros(1, 3, side, side))
        found[name] = counted.peak / (HEADS * tokens * tokens * 4)
        print(f"{name}, {tokens:,} tokens: {found[name]:.2f} times heads x tokens x tokens")
    assert found["SAM"] >= 2 and found["DINOv2"] < 0.4 * 1024 / tokens
PYTHON
"$folder/venv/bin/python" "$folder/see.py" 2> "$folder/said" || { cat "$folder/said" >&2; exit 1; }
