#!/usr/bin/env bash
# safetensors: whether NumPy reads a file in bfloat16 depends on whether another package has been imported.
#
# Guess: safetensors.numpy reads bfloat16, or does not.
# Seen:  it asks NumPy for a type of that name, which is there once anything has imported ml_dtypes (onnx does, and so
#        does jax). The same file, the same call: "data type 'bfloat16' not understood", and after `import onnx` two
#        bytes a number. Floats of 8 bits it reads in neither case: for those it asks for an attribute of NumPy itself.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q safetensors==0.8.0 numpy==2.4.6 ml_dtypes==0.6.0 onnx==1.23.2
cat > "$folder/see.py" <<'PYTHON'
import json
import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path

print(*(f"{name} {version(name)}" for name in ("safetensors", "numpy", "ml_dtypes", "onnx")))
READ = "import safetensors.numpy as s, sys; v = s.load_file(sys.argv[1])['one']; print(v.dtype, v.nbytes)"
with tempfile.TemporaryDirectory() as folder:
    for kind, width in (("BF16", 2), ("F8_E4M3", 1), ("F16", 2)):
        path = Path(folder) / kind
        header = json.dumps({"one": {"dtype": kind, "shape": [4], "data_offsets": [0, 4 * width]}}).encode()
        path.write_bytes(len(header).to_bytes(8, "little") + header + bytes(4 * width))
        for before in ("", "import onnx; ", "import ml_dtypes; "):
            ran = subprocess.run([sys.executable, "-c", before + READ, path], capture_output=True, text=True)
            said = (ran.stdout or ran.stderr).strip().splitlines()[-1]
            print(f"{kind}, {before or 'nothing imported'}: {said}")
            assert (ran.returncode == 0) == (kind == "F16" or (kind == "BF16" and bool(before)))
PYTHON
"$folder/venv/bin/python" "$folder/see.py" 2> "$folder/said" || { cat "$folder/said" >&2; exit 1; }
