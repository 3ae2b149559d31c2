#!/usr/bin/env bash
# datasets: an array of bytes comes back as int64 in PyTorch's format, eight times as large; the same picture as bytes.
#
# Guess: with_format("torch") returns a column in the dtype that it is kept in.
# Seen:  every whole number becomes int64 and every other float32, whatever the column says: uint8 pixels take eight
#        times as much in a batch, latents in float16 twice. A column of pictures (Image) is the exception and stays
#        uint8. Of bfloat16 no trace is left: it is kept in float32 on the disk, too. with_format("torch",
#        dtype=torch.uint8) returns bytes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q torch==2.13.0 datasets==5.2.0 pillow==13.0.0 numpy==2.4.6
cat > "$folder/see.py" <<'PYTHON'
from importlib.metadata import version

import numpy
import torch
from datasets import Array3D, Dataset, Features, Image, disable_progress_bars
from PIL import Image as Picture

disable_progress_bars()
MANY, SHAPE = 8, (16, 16, 3)
print(*(f"{name} {version(name)}" for name in ("torch", "datasets")))
pixels = numpy.arange(MANY * 16 * 16 * 3, dtype=numpy.uint8).reshape(MANY, *SHAPE)


def kept(values):
    return Dataset.from_dict({"id": list(range(MANY))}).map(lambda row, which: {"x": values[which]}, with_indices=True)


given = {
    "picture": Dataset.from_dict(
        {"x": [Picture.fromarray(one) for one in pixels]}, features=Features({"x": Image()})
    ),
    "uint8, as mapped": kept(pixels),
    "uint8, as declared": Dataset.from_dict({"x": pixels}, features=Features({"x": Array3D(SHAPE, "uint8")})),
    "float16": kept(torch.ones(MANY, *SHAPE, dtype=torch.float16)),
    "bfloat16": kept(torch.ones(MANY, *SHAPE, dtype=torch.bfloat16)),
}
EXPECTED = {
    "picture": torch.uint8, "uint8, as mapped": torch.int64, "uint8, as declared": torch.int64,
    "float16": torch.float32, "bfloat16": torch.float32,
}
for name, data in given.items():
    found = data.with_format("torch")[0]["x"]
    print(f"{name}: a column of {data.features['x']}, in torch's format {found.dtype}")
    assert found.dtype == EXPECTED[name] and found.numel() == 16 * 16 * 3
    if name == "picture":
        assert torch.equal(found.movedim(0, -1), torch.from_numpy(pixels[0]))
assert "float16" in str(given["float16"].features["x"]) and "float32" in str(given["bfloat16"].features["x"])
told = given["uint8, as mapped"].with_format("torch", dtype=torch.uint8)[0]["x"]
print(f"uint8, asked for: {told.dtype}")
assert told.dtype == torch.uint8
PYTHON
"$folder/venv/bin/python" "$folder/see.py" 2> "$folder/said" || { cat "$folder/said" >&2; exit 1; }
