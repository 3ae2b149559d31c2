#!/usr/bin/env bash
# onnx: a tensor made of a list takes 5.5 bytes for an int8 number, more than in float32.
#
# Guess: an initialiser takes its data type's width: one byte for int8, two for float16.
# Seen:  so it does from an array (numpy_helper.from_array) or with raw=True. helper.make_tensor, as it is called,
#        writes every type but float32 and its like into int32_data, where protobuf gives a number one byte below 128,
#        two below 16,384, and ten where it is negative. Half of the numbers of an int8 weight are: 5.5 bytes on
#        average. Float16 and bfloat16, written as the integers that their bits make, take 2.5; int8 quantised to save
#        memory makes a larger file than the float32 that it came from.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q onnx==1.23.2 numpy==2.4.6
cat > "$folder/see.py" <<'PYTHON'
from importlib.metadata import version

import numpy
from onnx import TensorProto, helper, numpy_helper

MANY = 100_000
print(*(f"{name} {version(name)}" for name in ("onnx", "numpy")))
random = numpy.random.default_rng(0)
normal = (random.standard_normal(MANY) * 0.02).astype(numpy.float32)
whole = numpy.clip(normal / 0.0006, -127, 127).round().astype(numpy.int8)
for name, values, width, expected in (
    ("FLOAT", normal, 4, 4), ("INT8", whole, 1, 5.5), ("FLOAT16", normal.astype(numpy.float16), 2, 2.5),
    ("BFLOAT16", normal, 2, 2.5),
):
    made = helper.make_tensor("weight", getattr(TensorProto, name), [MANY], values).ByteSize() / MANY
    print(f"{name}: {made:.2f} bytes a number from make_tensor")
    assert abs(made - expected) < 0.1
    if name != "BFLOAT16":
        raw = helper.make_tensor("weight", getattr(TensorProto, name), [MANY], values.tobytes(), raw=True).ByteSize()
        array = numpy_helper.from_array(values).ByteSize()
        print(f"{name}: {raw / MANY:.2f} with raw=True, {array / MANY:.2f} from an array")
        assert abs(raw / MANY - width) < 0.01 and abs(array / MANY - width) < 0.01
PYTHON
"$folder/venv/bin/python" "$folder/see.py" 2> "$folder/said" || { cat "$folder/said" >&2; exit 1; }
