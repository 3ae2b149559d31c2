#!/usr/bin/env bash
# hqq: weights in 5 and 6 bits take 8, and those in 1.58 bits 2.
#
# Guess: n bits take n bits, scales and zeros aside, as 3 bits (3.2, ten of them in 32) nearly do.
# Seen:  5, 6 and 8 bits are one byte each, so 5 and 6 lose accuracy and save nothing; 1.58 are 2 bits. With
#        groups of 64, scale and zero add half a bit: what is called 4 bits takes 4.5, 1 bit 1.5.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q torch==2.13.0 transformers==5.23.0 hqq==0.2.8.post1
cat > "$folder/see.py" <<'PYTHON'
from importlib.metadata import version

import torch
from hqq.core.quantize import BaseQuantizeConfig, HQQLinear

WIDE, GROUP = 512, 64
print(*(f"{name} {version(name)}" for name in ("torch", "hqq")))
for bits, expected in ((8, 8), (6, 8), (5, 8), (4, 4), (3, 3.2), (2, 2), (1.58, 2), (1, 1)):
    layer = HQQLinear(
        torch.nn.Linear(WIDE, WIDE, bias=False), BaseQuantizeConfig(nbits=bits, group_size=GROUP),
        compute_dtype=torch.bfloat16, device="cpu",
    )
    many = WIDE * WIDE
    beside = sum(one.nbytes for one in layer.meta.values() if isinstance(one, torch.Tensor))
    weight = layer.W_q.nbytes * 8 / many
    print(f"{bits} bits: {weight:.2f} a weight, {beside * 8 / many:.2f} of scales and zeros")
    assert abs(weight - expected) < 0.01 and beside * 8 == many // 2
PYTHON
"$folder/venv/bin/python" "$folder/see.py" 2> "$folder/said" || { cat "$folder/said" >&2; exit 1; }
