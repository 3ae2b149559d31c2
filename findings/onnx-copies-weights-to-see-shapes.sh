#!/usr/bin/env bash
# onnx: checking a model takes twice its weights, inferring its shapes four times, for no weight that is looked at.
#
# Guess: check_model and infer_shapes walk over the nodes, and leave the weights where they are.
# Seen:  the model is written to bytes and read again on the other side: two copies more to check it. infer_shapes
#        writes its answer out too and reads that: four copies at its peak, and the model that it returns is a whole
#        second one. convert_version takes five. Both have a way that is given a path, and weights kept in a file
#        beside the model and not loaded (load_external_data=False) are not copied at all.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q onnx==1.23.2 numpy==2.4.6
cat > "$folder/see.py" <<'PYTHON'
import gc
import pathlib
from importlib.metadata import version

import numpy
import onnx
from onnx import helper, numpy_helper, shape_inference, version_converter

WIDE, LAYERS = 3072, 4
print(*(f"{name} {version(name)}" for name in ("onnx", "numpy")))


def memory(which):
    status = pathlib.Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in status if line.startswith(which))


def build():
    weights = [numpy_helper.from_array(numpy.ones((WIDE, WIDE), numpy.float32), f"w{layer}") for layer in range(LAYERS)]
    nodes = [helper.make_node("MatMul", [f"x{layer}", f"w{layer}"], [f"x{layer + 1}"]) for layer in range(LAYERS)]
    ends = [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["n", WIDE]) for name in ("x0", f"x{LAYERS}")]
    graph = helper.make_graph(nodes, "graph", ends[:1], ends[1:], weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


model, weights = build(), WIDE * WIDE * 4 * LAYERS
for name, call, peak, kept in (
    ("check_model", onnx.checker.check_model, 2, 0), ("infer_shapes", shape_inference.infer_shapes, 4, 1),
    ("convert_version", lambda one: version_converter.convert_version(one, 18), 5, 1),
):
    gc.collect()
    pathlib.Path("/proc/self/clear_refs").write_text("5")  # the highest mark starts anew
    before = memory("VmRSS")
    answer = call(model)
    found, left = (memory("VmHWM") - before) / weights, (memory("VmRSS") - before) / weights
    print(f"{name}: {found:.1f} times the weights at its peak, {left:.1f} kept")
    assert abs(found - peak) < 0.35 and abs(left - kept) < 0.25
    del answer
PYTHON
"$folder/venv/bin/python" "$folder/see.py" 2> "$folder/said" || { cat "$folder/said" >&2; exit 1; }
