#!/usr/bin/env bash
# torchao: int4 leaves layers of some widths as they are, without a word; its other int4 takes eight bits.
#
# Guess: int4 with groups of 128 packs every linear layer, or says that it cannot; any int4 takes half a byte.
# Seen:  Int4WeightOnlyConfig passes over a layer whose inputs are no multiple of the group, without a warning: the
#        layers of 2,240 inputs in Sana 1.6B, of 576 in SmolLM 135M, of 320 in SD 1.5 stay in bfloat16.
#        IntxWeightOnlyConfig(weight_dtype=torch.int4) raises there; what it packs takes a byte
#        a weight (its default keeps int4 unpacked), just as int8 would.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q torch==2.13.0 torchao==0.18.0
cat > "$folder/see.py" <<'PYTHON'
import warnings
from importlib.metadata import version

import torch
from torchao.quantization import Int4WeightOnlyConfig, IntxWeightOnlyConfig, PerGroup, quantize_

warnings.simplefilter("error", UserWarning)
print(*(f"{name} {version(name)}" for name in ("torch", "torchao")))
GROUP, OUT = 128, 64


def parts(tensor):
    """Yield the plain tensors that a tensor of several is made of."""
    if hasattr(tensor, "__tensor_flatten__"):
        for name in tensor.__tensor_flatten__()[0]:
            yield from parts(getattr(tensor, name))
    else:
        yield tensor


def tried(width, config):
    """Return the bytes a weight that a layer takes afterwards, or the kind of error."""
    model = torch.nn.Sequential(torch.nn.Linear(width, OUT, bias=False)).to(torch.bfloat16)
    try:
        quantize_(model, config)
    except (ImportError, AssertionError) as error:
        return type(error).__name__
    return sum(one.nbytes for one in parts(model[0].weight)) / (width * OUT)


for width in (2048, 2240, 576, 320):
    int4 = tried(width, Int4WeightOnlyConfig(group_size=GROUP))
    intx = tried(width, IntxWeightOnlyConfig(weight_dtype=torch.int4, granularity=PerGroup(GROUP)))
    print(f"width {width}: Int4WeightOnly {int4}, IntxWeightOnly in int4 {intx} (bytes a weight, or the error)")
    if width % GROUP:
        assert int4 == 2 and intx == "AssertionError"
    else:  # packing wants a package of kernels for GPUs; that it asks for it shows that it would pack
        assert int4 == "ImportError" and 1 < intx < 1.05
PYTHON
"$folder/venv/bin/python" "$folder/see.py" 2> "$folder/said" || { cat "$folder/said" >&2; exit 1; }
