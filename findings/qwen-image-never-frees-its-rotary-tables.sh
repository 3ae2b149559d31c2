#!/usr/bin/env bash
# diffusers: Qwen-Image keeps a rotary table of every size it has drawn, and none goes with the model.
#
# Guess: position tables are made for a run and freed with it, or are buffers and go with the model.
# Seen:  each new size adds a table (2 MiB at 1024x1024, 8 at 2048x2048) to a functools.lru_cache of 128 on the
#        class's method, beside 4 MiB of base tables a device. The cache holds the module that asked, too:
#        when pipeline and model are deleted and collected, their rotary module and all tables stay. A
#        server that draws 100 sizes and then swaps the model cannot get some 200 MiB back.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q torch==2.13.0 transformers==5.23.0 diffusers==0.42.1
cat > "$folder/see.py" <<'PYTHON'
import gc
import weakref
from importlib.metadata import version

import torch
from diffusers import QwenImageTransformer2DModel

MIB = 1 << 20
print(*(f"{name} {version(name)}" for name in ("torch", "diffusers")))
model = QwenImageTransformer2DModel(  # rotary tables are those of any Qwen-Image
    num_layers=1, num_attention_heads=1, attention_head_dim=128, joint_attention_dim=8, in_channels=4, out_channels=1
).eval()


def tables():
    """Return the bytes of all complex tensors alive."""
    gc.collect()
    found = {}
    for one in gc.get_objects():
        if isinstance(one, torch.Tensor) and one.is_complex():
            found[one.untyped_storage()._cdata] = one.untyped_storage().nbytes()
    return sum(found.values())


def draw(*sizes):
    for height, width in sizes:
        with torch.no_grad():
            model.pos_embed([(1, height // 16, width // 16)], max_txt_seq_len=8, device=torch.device("cpu"))
    return tables()


before = tables()
one = draw((1024, 1024), (1024, 1024))
assert one - before == 2 * MIB
sizes = [(768 + 16 * step, 1280) for step in range(40)]
many = draw(*sizes)
expected = sum(height * width // 256 * 64 * 8 for height, width in sizes)
print(f"tables of the module {before / MIB:.0f} MiB; of 1024x1024 {(one - before) / MIB:.0f} MiB more;",
      f"of {len(sizes)} other sizes {(many - one) / MIB:.0f} MiB more")
assert many - one == expected
gone, left = weakref.ref(model), weakref.ref(model.pos_embed)
del model
after = tables()
print(f"model collected: {gone() is None}; its rotary module: {left() is None}; tables still held: {after / MIB:.0f} MiB")
assert gone() is None and left() is not None and after == many
PYTHON
"$folder/venv/bin/python" "$folder/see.py" 2> "$folder/said" || { cat "$folder/said" >&2; exit 1; }
