#!/usr/bin/env bash
# onnx: a model saved again to the same place lies there twice, and the file grows with each save.
#
# Guess: a file that is there is written anew.
# Seen:  the graph's is; the file of its weights is appended to, however the weights came. The model points at the last
#        copy, and nothing reads those before it: three saves, three times the size. Who takes a file's length for the
#        memory of the weights counts all of them. Without a name for it each save makes a file with a new one.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q onnx==1.23.2 numpy==2.4.6
cat > "$folder/see.py" <<'PYTHON'
import copy
import os
import tempfile
from importlib.metadata import version

import numpy
import onnx
from onnx import TensorProto, helper, numpy_helper

WIDE, SAVES = 512, 3
print(*(f"{name} {version(name)}" for name in ("onnx", "numpy")))
weight = numpy_helper.from_array(numpy.ones((WIDE, WIDE), numpy.float32), "weight")
graph = helper.make_graph(
    [helper.make_node("MatMul", ["x", "weight"], ["y"])], "graph",
    [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, WIDE])],
    [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, WIDE])], [weight],
)
model = helper.make_model(graph)
true = WIDE * WIDE * 4
with tempfile.TemporaryDirectory() as folder:
    path, data = f"{folder}/model.onnx", f"{folder}/model.data"
    for save in range(1, SAVES + 1):
        onnx.save_model(copy.deepcopy(model), path, save_as_external_data=True, location="model.data")
        (tensor,) = onnx.load(path, load_external_data=False).graph.initializer
        where = {one.key: one.value for one in tensor.external_data}
        size = os.path.getsize(data)
        print(f"save {save}: weights {true:,} bytes, file {size:,}, the model reads from {int(where['offset']):,}")
        assert size == save * true and int(where["offset"]) == (save - 1) * true
    onnx.save_model(onnx.load(path), path, save_as_external_data=True, location="model.data")
    print(f"loaded and saved: {os.path.getsize(data):,}")
    assert os.path.getsize(data) == (SAVES + 1) * true
with tempfile.TemporaryDirectory() as folder:
    for _ in range(SAVES):
        onnx.save_model(copy.deepcopy(model), f"{folder}/model.onnx", save_as_external_data=True)
    files = os.listdir(folder)
    print(f"without a name: {len(files) - 1} files of weights after {SAVES} saves")
    assert len(files) == 1 + SAVES
PYTHON
"$folder/venv/bin/python" "$folder/see.py" 2> "$folder/said" || { cat "$folder/said" >&2; exit 1; }
