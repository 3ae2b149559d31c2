#!/usr/bin/env bash
# timm: BEiT numbers each pair of patches in every layer: at 896 x 896 that takes 2.7 times its weights.
#
# Guess: relative positions are a small table a layer; what says which entry a pair takes is shared, or made when needed.
# Seen:  each layer has an index of its own, tokens x tokens in int64, as a buffer that no checkpoint has, no count of
#        parameters finds and half() leaves as it is. At 224 x 224 all are 3.6 MiB; at 896 x 896 901, beside 336 of weights
#        in float32 and 168 in half precision; those of the large model at 2048 x 2048 48 GiB. vit_relpos and GC ViT do
#        the same; Swin, whose windows stay small, does not, and shared positions (vit_srelpos) have one index.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q torch==2.14.1 torchvision==0.29.1 timm==1.0.31
cat > "$folder/see.py" <<'PYTHON'
from importlib.metadata import version

import timm
import torch

print(*(f"{name} {version(name)}" for name in ("torch", "timm")))
for name, side, indices, ratio in (
    ("beit_base_patch16_224", 224, 12, 0.01), ("beit_base_patch16_224", 896, 12, 2.68),
    ("beit_large_patch16_512", 2048, 24, 39.15), ("vit_relpos_base_patch16_224", 896, 12, 2.73),
    ("gcvit_tiny", 896, 31, 12.83), ("vit_srelpos_medium_patch16_224", 896, 1, 0.51),
    ("swin_tiny_patch4_window7_224", 896, 12, 0.00),
):  # fmt: skip
    with torch.device("meta"):
        model = timm.create_model(name, img_size=side).half()
    index = {key: one for key, one in model.named_buffers() if key.endswith("relative_position_index")}
    taken, weights = sum(one.nbytes for one in index.values()), 4 * sum(one.numel() for one in model.parameters())
    pairs = {one.numel() for one in index.values()}
    print(f"{name} at {side}: {len(index)} indices of up to {max(pairs):,} pairs, {taken / 2**20:,.1f} MiB;",
          f"weights {weights / 2**20:,.1f} MiB in float32, {weights / 2**21:,.1f} in half")
    assert len(index) == indices and {one.dtype for one in index.values()} == {torch.int64}
    assert not index.keys() & model.state_dict().keys() and abs(taken / weights - ratio) < 0.006
    if "beit" in name:
        assert pairs == {((side // 16) ** 2 + 1) ** 2}
PYTHON
"$folder/venv/bin/python" "$folder/see.py" 2> "$folder/said" || { cat "$folder/said" >&2; exit 1; }
