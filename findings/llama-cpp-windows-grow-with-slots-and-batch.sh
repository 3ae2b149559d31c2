#!/usr/bin/env bash
# llama.cpp: a layer with a sliding window keeps the window once a slot, shared cache or not, and a micro-batch more.
#
# Guess: a window of 1,024 costs 1,024 cells; slots that share a unified cache share them, too; -ub costs scratch.
# Seen:  with -ub 512 one slot takes 1,536 cells a layer, four slots of a unified cache (what llama-server does
#        by itself) 4,608, three times as many, although the layers without a window take no more. With
#        -ub 2048 one slot takes 3,072: five layers of six of a Gemma 3 then cost twice as much.
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
params.n_parallel, params.n_ubatch = int(sys.argv[2]), int(sys.argv[3])
params.kv_unified = params.n_parallel > 1
params.n_ctx, params.n_batch, params.verbosity = 32768, 2048, 4
params.warmup = params.fit_params = False
params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
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
LAYERS, WIDE, HEAD, WORDS, WINDOW = 6, 64, 32, 32, 1024
path = f"{FOLDER}/model.gguf"
out = gguf.GGUFWriter(path, "gemma3")  # five layers of six have a window
out.add_block_count(LAYERS)
out.add_context_length(131_072)
out.add_embedding_length(WIDE)
out.add_feed_forward_length(WIDE)
out.add_head_count(2)
out.add_head_count_kv(1)
out.add_key_length(HEAD)
out.add_value_length(HEAD)
out.add_layer_norm_rms_eps(1e-6)
out.add_sliding_window(WINDOW)
out.add_tokenizer_model("gpt2")
out.add_tokenizer_pre("default")
out.add_token_list([f"t{number}" for number in range(WORDS)])
out.add_token_types([1] * WORDS)
out.add_token_merges(["t 0"])
out.add_bos_token_id(0)
out.add_eos_token_id(0)
shapes = {"token_embd": (WORDS, WIDE), "output_norm": (WIDE,)}
for layer in range(LAYERS):
    for name, shape in {
        "attn_q": (2 * HEAD, WIDE), "attn_k": (HEAD, WIDE), "attn_v": (HEAD, WIDE), "attn_output": (WIDE, 2 * HEAD),
        "attn_q_norm": (HEAD,), "attn_k_norm": (HEAD,), "attn_norm": (WIDE,), "post_attention_norm": (WIDE,),
        "ffn_norm": (WIDE,), "post_ffw_norm": (WIDE,), "ffn_gate": (WIDE, WIDE), "ffn_up": (WIDE, WIDE),
        "ffn_down": (WIDE, WIDE),
    }.items():
        shapes[f"blk.{layer}.{name}"] = shape
for name, shape in shapes.items():
    out.add_tensor(f"{name}.weight", numpy.zeros(shape, dtype=numpy.float32))
out.write_header_to_file()
out.write_kv_data_to_file()
out.write_tensors_to_file()
out.close()


def cells(slots, batch):
    """Return (cells, layers) of each cache, from what the engine prints while it loads."""
    found = []
    command = [sys.executable, f"{FOLDER}/load.py", path, str(slots), str(batch)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True) as engine:
        for line in engine.stderr:
            if cache := re.search(r"\( *(\d+) cells, +(\d+) layers", line):
                found.append((int(cache[1]), int(cache[2])))
            if "splits =" in line:
                break
        engine.kill()
    return found


for slots, batch in ((1, 512), (4, 512), (1, 2048)):
    caches = cells(slots, batch)
    print("xllamacpp", version("xllamacpp"), f"· window {WINDOW}, {slots} slots, -ub {batch}:",
          ", ".join(f"{many} layers of {size} cells" for size, many in caches))
    assert caches == [(32768, 1), (slots * WINDOW + batch, 5)]
PYTHON
"$folder/venv/bin/python" "$folder/see.py" "$folder"
