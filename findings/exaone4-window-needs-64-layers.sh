#!/usr/bin/env bash
# llama.cpp: an EXAONE 4 file has its sliding windows only if it has exactly 64 layers.
#
# Guess: exaone4.attention.sliding_window (4096) makes a small cache for three layers of four, whatever
#        the number of layers, as it does for other families.
# Seen:  with 64 layers (the published 32B) the windowed layers keep 4,608 cells of 32,768; with 32 or 48
#        layers (a pruned or distilled model with the same header) the window is not read, and the
#        cache is four times as large.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q gguf==0.19.0 xllamacpp==2026.10.11549
cat > "$folder/load.py" <<'PYTHON'
import sys

import xllamacpp as engine

params = engine.CommonParams()
params.model.path = sys.argv[1]
params.n_ctx, params.n_parallel, params.verbosity = 32768, 1, 4
params.warmup = params.fit_params = False
engine.Server(params)
PYTHON
cat > "$folder/see.py" <<'PYTHON'
import re
import subprocess
import sys
from importlib.metadata import version

import gguf
import numpy

FOLDER = sys.argv[1]
WIDE, HEAD, WORDS = 64, 32, 32


def write(path, layers):
    out = gguf.GGUFWriter(path, "exaone4")
    out.add_block_count(layers)
    out.add_context_length(65536)
    out.add_embedding_length(WIDE)
    out.add_feed_forward_length(WIDE)
    out.add_head_count(2)
    out.add_head_count_kv(1)
    out.add_layer_norm_rms_eps(1e-6)
    out.add_sliding_window(4096)
    out.add_sliding_window_pattern(4)
    out.add_tokenizer_model("gpt2")
    out.add_tokenizer_pre("default")
    out.add_token_list([f"t{number}" for number in range(WORDS)])
    out.add_token_types([1] * WORDS)
    out.add_token_merges(["t 0"])
    out.add_bos_token_id(0)
    out.add_eos_token_id(0)
    shapes = {"token_embd": (WORDS, WIDE), "output_norm": (WIDE,)}
    for layer in range(layers):
        for name, shape in {
            "attn_q": (2 * HEAD, WIDE), "attn_k": (HEAD, WIDE), "attn_v": (HEAD, WIDE),
            "attn_output": (WIDE, 2 * HEAD), "attn_q_norm": (HEAD,), "attn_k_norm": (HEAD,),
            "post_attention_norm": (WIDE,), "post_ffw_norm": (WIDE,), "ffn_gate": (WIDE, WIDE),
            "ffn_up": (WIDE, WIDE), "ffn_down": (WIDE, WIDE),
        }.items():
            shapes[f"blk.{layer}.{name}"] = shape
    for name, shape in shapes.items():
        out.add_tensor(f"{name}.weight", numpy.zeros(shape, dtype=numpy.float32))
    out.write_header_to_file()
    out.write_kv_data_to_file()
    out.write_tensors_to_file()
    out.close()


def cells(path):
    """Return (cells, layers) of each cache, from what the engine prints while it loads."""
    found = []
    command = [sys.executable, f"{FOLDER}/load.py", path]
    with subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True) as engine:
        for line in engine.stderr:
            if cache := re.search(r"\( *(\d+) cells, +(\d+) layers", line):
                found.append((int(cache[1]), int(cache[2])))
            if "splits =" in line:
                break
        engine.kill()
    return found


for layers in (32, 48, 64):
    path = f"{FOLDER}/{layers}.gguf"
    write(path, layers)
    caches = cells(path)
    print("xllamacpp", version("xllamacpp"), "·", layers, "layers:", ", ".join(f"{many} layers of {size} cells" for size, many in caches))
    expected = [(32768, 16), (4608, 48)] if layers == 64 else [(32768, layers)]
    assert caches == expected, (layers, caches)
PYTHON
"$folder/venv/bin/python" "$folder/see.py" "$folder"
