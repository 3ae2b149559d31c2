#!/usr/bin/env bash
# torch: on meta a result of one image has other strides than on the CPU, and what follows from it another layout.
#
# Guess: meta gives shapes and strides as every device has them; only the numbers are missing.
# Seen:  where a side is one, and the tensor does not lie row by row, arithmetic gives other strides: what a decoder's
#        attention answers for one image (a transposed view), doubled, keeps them on the CPU and gets those of a
#        channels-last tensor on meta; a sigmoid of one channel is the other way around. Which layout a tensor has is
#        read from its strides: enlarged, that image lies row by row on the CPU, and channels-last on meta. Two images
#        are the same on both, powers of a number apart. A plan of memory that is made on meta is one of another run.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q torch==2.13.0
cat > "$folder/see.py" <<'PYTHON'
from importlib.metadata import version

import torch

print(f"torch {version('torch')}")
CASES = {
    "one image, transposed": ((1, 4, 32, 32), (4, 1, 128, 4)),
    "one channel": ((2, 1, 8, 8), (64, 1, 8, 1)),
    "two images, transposed": ((2, 4, 32, 32), (4096, 1, 128, 4)),
}
WORK = {"x * 2": lambda x: x * 2.0, "sigmoid": torch.sigmoid, "2 ** x": lambda x: torch.pow(2.0, x)}
differ = {}
for name, (shape, strides) in CASES.items():
    for work, function in WORK.items():
        cpu, meta = (function(torch.empty_strided(shape, strides, device=one)).stride() for one in ("cpu", "meta"))
        print(f"{name}, {work}: {cpu} on the CPU, {meta} on meta")
        differ[name, work] = cpu != meta
assert differ["one image, transposed", "x * 2"] and differ["one channel", "sigmoid"]
assert not differ["two images, transposed", "x * 2"] and not differ["two images, transposed", "sigmoid"]
for name, expected in (("one image, transposed", (True, False)), ("two images, transposed", (False, False))):
    shape, strides = CASES[name]
    found = tuple(
        torch.nn.functional.interpolate(torch.empty_strided(shape, strides, device=one) * 2.0, scale_factor=2.0)
        .is_contiguous() for one in ("cpu", "meta")
    )
    print(f"{name}, doubled and enlarged: row by row on the CPU {found[0]}, on meta {found[1]}")
    assert found == expected
PYTHON
"$folder/venv/bin/python" "$folder/see.py" 2> "$folder/said" || { cat "$folder/said" >&2; exit 1; }
