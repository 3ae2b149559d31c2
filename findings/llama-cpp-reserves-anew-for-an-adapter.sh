#!/usr/bin/env bash
# llama.cpp: with a LoRA adapter, the compute buffer it prints at load is not the one it runs with.
#
# Guess: an adapter is loaded before the graph is reserved, and what load prints (and a fit plans with) is final.
# Seen:  the graph is reserved without the adapter. At the first batch, after all has been placed and printed, it
#        is reserved anew with it, and is larger: a run that loaded can still go out of memory then. Without
#        an adapter it is reserved once. The second size is printed only at a high verbosity.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q gguf==0.19.0 xllamacpp==2026.10.11549
cat > "$folder/load.py" <<'PYTHON'
import os
import sys
import time

import xllamacpp as engine

params = engine.CommonParams()
params.model.path = sys.argv[1]
params.n_ctx, params.n_parallel, params.verbosity = 512, 1, 4
params.warmup, params.fit_params = True, False
params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
if len(sys.argv) > 2:
    params.lora_adapters = [engine.CommonAdapterLoraInfo(sys.argv[2], 1.0)]
server = engine.Server(params)
time.sleep(2)  # its log is written by a thread
os._exit(0)
PYTHON
cat > "$folder/see.py" <<'PYTHON'
import re
import subprocess
import sys
from importlib.metadata import version

import gguf
import numpy

FOLDER = sys.argv[1]
LAYERS, WIDE, INNER, WORDS, RANK = 2, 256, 512, 64, 8


def write(path, architecture, keys, shapes):
    out = gguf.GGUFWriter(path, architecture)
    keys(out)
    for name, shape in shapes.items():
        out.add_tensor(name, numpy.zeros(shape, dtype=numpy.float32))
    out.write_header_to_file()
    out.write_kv_data_to_file()
    out.write_tensors_to_file()
    out.close()


def model_keys(out):
    out.add_block_count(LAYERS)
    out.add_context_length(4096)
    out.add_embedding_length(WIDE)
    out.add_feed_forward_length(INNER)
    out.add_head_count(4)
    out.add_head_count_kv(4)
    out.add_layer_norm_rms_eps(1e-6)
    out.add_tokenizer_model("gpt2")
    out.add_tokenizer_pre("default")
    out.add_token_list([f"t{number}" for number in range(WORDS)])
    out.add_token_types([1] * WORDS)
    out.add_token_merges(["t 0"])
    out.add_bos_token_id(0)
    out.add_eos_token_id(0)


def adapter_keys(out):
    out.add_type("adapter")
    out.add_string("adapter.type", "lora")
    out.add_float32("adapter.lora.alpha", 8.0)


def reserved(*files):
    """Return the MiB of each graph that the engine reserves."""
    said = subprocess.run(
        [sys.executable, f"{FOLDER}/load.py", *files], check=True, capture_output=True, text=True
    ).stderr
    return [float(size) for size in re.findall(r"sched_reserve: +CPU compute buffer size = +([\d.]+) MiB", said)]


shapes = {"token_embd.weight": (WORDS, WIDE), "output_norm.weight": (WIDE,), "output.weight": (WORDS, WIDE)}
adapter = {}
for layer in range(LAYERS):
    matrices = {
        "attn_q": (WIDE, WIDE), "attn_k": (WIDE, WIDE), "attn_v": (WIDE, WIDE), "attn_output": (WIDE, WIDE),
        "ffn_gate": (INNER, WIDE), "ffn_up": (INNER, WIDE), "ffn_down": (WIDE, INNER),
    }
    for name, shape in {**matrices, "attn_norm": (WIDE,), "ffn_norm": (WIDE,)}.items():
        shapes[f"blk.{layer}.{name}.weight"] = shape
    for name in ("ffn_up", "ffn_down"):
        adapter[f"blk.{layer}.{name}.weight.lora_a"] = (RANK, matrices[name][1])
        adapter[f"blk.{layer}.{name}.weight.lora_b"] = (matrices[name][0], RANK)
write(f"{FOLDER}/model.gguf", "llama", model_keys, shapes)
write(f"{FOLDER}/adapter.gguf", "llama", adapter_keys, adapter)
plain, adapted = reserved(f"{FOLDER}/model.gguf"), reserved(f"{FOLDER}/model.gguf", f"{FOLDER}/adapter.gguf")
print("xllamacpp", version("xllamacpp"), "· MiB reserved: without an adapter", plain, "with one", adapted)
assert len(plain) == 1 and len(adapted) == 2
assert adapted[0] == plain[0] and adapted[1] > 1.1 * adapted[0]
PYTHON
"$folder/venv/bin/python" "$folder/see.py" "$folder"
