#!/usr/bin/env bash
# onnxruntime: a file of 4 MiB with a shared head is 8 MiB in memory, and one of 200 bytes may be 16 MiB.
#
# Guess: a session holds the initialisers that its file has.
# Seen:  whatever follows from constants alone is computed at the start and kept. A head that shares the embedding
#        reads it through a Transpose, as torch.onnx.export writes it: the transposed copy becomes a second matrix
#        beside the first. A causal mask made by ConstantOfShape and Trilu is kept in full, 64 MiB for 4,096
#        positions. With disabled_optimizers=["ConstantFolding"] neither is kept, and the mask is made at each run.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q onnx==1.23.2 onnxruntime==1.32.0 numpy==2.4.6
cat > "$folder/see.py" <<'PYTHON'
import os
import sys
from importlib.metadata import version

import numpy
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

WORDS, WIDE, TOKENS = 4096, 256, 2048
print(*(f"{name} {version(name)}" for name in ("onnx", "onnxruntime")))
value, node = helper.make_tensor_value_info, helper.make_node
one = helper.make_tensor("one", TensorProto.FLOAT, [1], [1.0])
MODELS = {
    "a shared head": (
        [node("Gather", ["table", "ids"], ["h"]), node("Transpose", ["table"], ["turned"], perm=[1, 0]),
         node("MatMul", ["h", "turned"], ["y"])],
        value("ids", TensorProto.INT64, ["n"]), value("y", TensorProto.FLOAT, ["n", WORDS]),
        numpy_helper.from_array(numpy.random.default_rng(0).random((WORDS, WIDE), numpy.float32), "table"),
        WORDS * WIDE * 4,
    ),
    "a causal mask": (
        [node("ConstantOfShape", ["shape"], ["ones"], value=one), node("Trilu", ["ones"], ["mask"], upper=0),
         node("Add", ["x", "mask"], ["y"])],
        value("x", TensorProto.FLOAT, [TOKENS, TOKENS]), value("y", TensorProto.FLOAT, [TOKENS, TOKENS]),
        numpy_helper.from_array(numpy.array([TOKENS, TOKENS]), "shape"),
        TOKENS * TOKENS * 4,
    ),
}
for name, (nodes, given, made, constant, more) in MODELS.items():
    path, run = (os.path.join(sys.path[0], one) for one in ("model.onnx", "as-run.onnx"))
    graph = helper.make_graph(nodes, "graph", [given], [made], [constant])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
    for disabled in ([], ["ConstantFolding"]):
        options = onnxruntime.SessionOptions()
        options.optimized_model_filepath, options.log_severity_level = run, 3
        onnxruntime.InferenceSession(
            path, options, providers=["CPUExecutionProvider"], disabled_optimizers=disabled
        )
        held = sum(numpy_helper.to_array(one).nbytes for one in onnx.load(run).graph.initializer)
        print(f"{name}, without {disabled}: a file of {os.path.getsize(path):,} bytes, as it is run",
              f"{held:,} bytes of weights")
        kept = WORDS * WIDE * 4 if name == "a shared head" else 0
        assert abs(held - kept - (0 if disabled else more)) < 100
PYTHON
"$folder/venv/bin/python" "$folder/see.py" 2> "$folder/said" || { cat "$folder/said" >&2; exit 1; }
