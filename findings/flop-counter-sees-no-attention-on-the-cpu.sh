#!/usr/bin/env bash
# torch: the counter of operations counts no attention on the CPU, and all of it on meta.
#
# Guess: FlopCounterMode counts one model alike on every device.
# Seen:  on the CPU scaled_dot_product_attention is an operator of its own, for which the counter has no rule and says
#        nothing: 0. On meta it is made of two products, which are counted, as CUDA's kernels are. With a mask that is
#        added it is an operator of its own on the CPU as well. Of a layer of Llama 3.2 1B over 8,192 tokens 36 % of the
#        operations are gone, over 32,768 tokens 69 %, and the count grows with the tokens alone, not with their square.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q torch==2.13.0
cat > "$folder/see.py" <<'PYTHON'
from importlib.metadata import version

import torch
from torch.nn.functional import scaled_dot_product_attention
from torch.utils.flop_counter import FlopCounterMode

print(f"torch {version('torch')}")
HEADS, TOKENS, SIDE = 32, 256, 64
PRODUCTS = 4 * HEADS * TOKENS * TOKENS * SIDE


def counted(device, **options):
    """Return the operations counted for one attention."""
    query = torch.zeros(1, HEADS, TOKENS, SIDE, device=device)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        scaled_dot_product_attention(query, query, query, **options)
    return counter.get_total_flops()


for name, options in (
    ("plain", {}), ("causal", {"is_causal": True}),
    ("masked", {"attn_mask": torch.zeros(1, 1, TOKENS, TOKENS)}),
):
    found = {}
    for device in ("cpu", "meta"):
        given = {key: one.to(device) if torch.is_tensor(one) else one for key, one in options.items()}
        found[device] = counted(device, **given)
    print(f"{name}: {found['cpu']:,} on the CPU, {found['meta']:,} on meta; the two products take {PRODUCTS:,}")
    assert found == {"cpu": 0, "meta": PRODUCTS}
# Query and output, key and value, gate, up and down: the matrices of a layer of Llama 3.2 1B.
WEIGHTS = 2 * 2048 * 2048 + 2 * 2048 * 512 + 3 * 2048 * 8192
for tokens in (8192, 32_768):
    rest, attention = 2 * WEIGHTS * tokens, 4 * HEADS * tokens * tokens * SIDE
    part = attention / (attention + rest)
    print(f"Llama 3.2 1B, {tokens:,} tokens: {part:.0%} of a layer's operations are attention's")
PYTHON
"$folder/venv/bin/python" "$folder/see.py" 2> "$folder/said" || { cat "$folder/said" >&2; exit 1; }
