#!/usr/bin/env bash
# onnxruntime: a float16 model is twice its file in memory on the CPU: all weights are made float32 at the start.
#
# Guess: a model in float16 takes half of the memory of one in float32, and is cast where it must be.
# Seen:  it has no float16 product for x86 CPUs, so casts are put around each, and a cast of a constant is computed
#        once and kept: all weights are float32 from the start. The model that is run (optimized_model_filepath writes
#        it) has two casts left, of the input and the result, and is as large as if it had never been in half
#        precision.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q onnx==1.23.2 onnxruntime==1.32.0 numpy==2.4.6
cat > "$folder/see.py" <<'PYTHON'
import os
import platform
import sys
from importlib.metadata import version

import numpy
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

WIDE, LAYERS = 512, 4
print(*(f"{name} {version(name)}" for name in ("onnx", "onnxruntime")))
assert platform.machine() == "x86_64", "other processors have products in half precision"
for kind, dtype in (("FLOAT", numpy.float32), ("FLOAT16", numpy.float16)):
    path, run = (os.path.join(sys.path[0], f"{kind}{name}.onnx") for name in ("", "-as-run"))
    weights = [numpy_helper.from_array(numpy.ones((WIDE, WIDE), dtype), f"w{layer}") for layer in range(LAYERS)]
    nodes = [helper.make_node("MatMul", [f"x{layer}", f"w{layer}"], [f"x{layer + 1}"]) for layer in range(LAYERS)]
    ends = [
        helper.make_tensor_value_info(name, getattr(TensorProto, kind), ["n", WIDE]) for name in ("x0", f"x{LAYERS}")
    ]
    graph = helper.make_graph(nodes, "graph", ends[:1], ends[1:], weights)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath, options.log_severity_level = run, 3
    onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    graph = onnx.load(run).graph
    held = sum(numpy_helper.to_array(one).nbytes for one in graph.initializer)
    print(f"{kind}: a file of {os.path.getsize(path):,} bytes; as it is run {held:,} bytes of weights,",
          f"{[node.op_type for node in graph.node]}")
    assert held == 4 * WIDE * WIDE * LAYERS
    assert {one.data_type for one in graph.initializer} == {TensorProto.FLOAT}
    assert sum(node.op_type == "Cast" for node in graph.node) == (2 if kind == "FLOAT16" else 0)
PYTHON
"$folder/venv/bin/python" "$folder/see.py" 2> "$folder/said" || { cat "$folder/said" >&2; exit 1; }
