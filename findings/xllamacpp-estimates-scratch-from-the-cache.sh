#!/usr/bin/env bash
# xllamacpp: for most architectures its estimate of scratch is a part of the cache, and grows with layers and context.
#
# Guess: what the package says of a model's memory follows the engine that it is made of: one layer's scratch.
# Seen:  estimate_gpu_layers knows the scratch of eight architectures. For all others (Qwen 3, Phi 3, Mistral 3, ...) it
#        is query heads / KV heads x the whole cache / 6; two layers more, and it doubles, where the engine's own buffer
#        stays. At the shapes of Qwen3 4B it wants 3 GiB for it at 32,768 tokens, besides 4.5 of cache. Where some
#        layers have no cache the ratio is of query heads to one, and all layers are given the largest cache: 5.3 GiB of
#        scratch and 1 of cache for LFM2 1.2B, which has 0.4.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q gguf==0.19.0 xllamacpp==2026.10.11549 numpy==2.4.6
cat > "$folder/see.py" <<'PYTHON'
import re
import subprocess
import sys
import tempfile
from importlib.metadata import version

import gguf
import numpy
import xllamacpp

print(*(f"{name} {version(name)}" for name in ("xllamacpp", "gguf")))
WORDS, TOKENS, BATCH = 32, 32_768, 512
LOAD = """
import sys
import xllamacpp as engine
params = engine.CommonParams()
params.model.path = sys.argv[1]
params.n_parallel, params.n_batch, params.n_ubatch, params.n_ctx, params.verbosity = 1, 512, 512, 32768, 4
params.warmup = params.fit_params = False
params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
engine.Server(params)
"""


def write(path, architecture, layers, wide, heads, kv_heads, side, tensors):
    out = gguf.GGUFWriter(path, architecture)
    out.add_block_count(layers)
    out.add_context_length(TOKENS)
    out.add_embedding_length(wide)
    out.add_feed_forward_length(wide)
    out.add_head_count(heads)
    out.add_head_count_kv(kv_heads)
    out.add_key_length(side)
    out.add_value_length(side)
    out.add_layer_norm_rms_eps(1e-6)
    out.add_tokenizer_model("gpt2")
    out.add_tokenizer_pre("default")
    out.add_token_list([f"t{number}" for number in range(WORDS)])
    out.add_token_types([1] * WORDS)
    out.add_token_merges(["t 0"])
    out.add_bos_token_id(0)
    out.add_eos_token_id(0)
    for name, shape in tensors.items():
        out.add_tensor(f"{name}.weight", numpy.zeros(shape, dtype=numpy.float32))
    out.write_header_to_file()
    out.write_kv_data_to_file()
    out.write_tensors_to_file()
    out.close()


def said(path):
    """Return the estimate for a card with room for everything."""
    card = {"name": "CUDA", "memory_free": 2**40}
    return xllamacpp.estimate_gpu_layers([card], path, [], TOKENS, BATCH, 1, "f16")


def seen(path):
    """Return the bytes of cache and of scratch that the engine prints."""
    found = {}
    command = [sys.executable, "-c", LOAD, path]
    with subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True) as engine:
        for line in engine.stderr:
            if size := re.search(r"(KV|compute) buffer size = +([\d.]+) MiB", line):
                found[size[1]] = float(size[2])
            if "splits =" in line:
                break
        engine.kill()
    return found


def qwen3(layers, wide=64, heads=32, kv_heads=8, side=128):
    tensors = {"token_embd": (WORDS, wide), "output_norm": (wide,)}
    for layer in range(layers):
        for name, shape in {
            "attn_q": (heads * side, wide), "attn_k": (kv_heads * side, wide), "attn_v": (kv_heads * side, wide),
            "attn_output": (wide, heads * side), "attn_q_norm": (side,), "attn_k_norm": (side,), "attn_norm": (wide,),
            "ffn_norm": (wide,), "ffn_gate": (wide, wide), "ffn_up": (wide, wide), "ffn_down": (wide, wide),
        }.items():
            tensors[f"blk.{layer}.{name}"] = shape
    return "qwen3", layers, wide, heads, kv_heads, side, tensors


with tempfile.TemporaryDirectory() as folder:
    path = f"{folder}/model.gguf"
    scratch = []
    for layers in (2, 4):
        write(path, *qwen3(layers))
        told, printed = said(path).graph / 2**20, seen(path)
        scratch.append((told, printed["compute"]))
        print(f"qwen3 of {layers} layers: scratch estimated {told:,.1f} MiB, the engine's {printed['compute']:,.1f};",
              f"its cache {printed['KV']:,.1f}")
        assert abs(told - 4 * printed["KV"] / 6) < 0.1
    assert scratch[1][0] > 1.99 * scratch[0][0] and scratch[1][1] < 1.01 * scratch[0][1]
    write(path, *qwen3(36)[:6], {f"blk.{layer}.attn_norm": (1,) for layer in range(36)})
    print(f"qwen3 of 36 layers (4B): scratch estimated {said(path).graph / 2**30:.2f} GiB")
    kv_heads = [8 if layer in (2, 5, 8, 10, 12, 14) else 0 for layer in range(16)]
    write(path, "lfm2", 16, 2048, 32, kv_heads, 64, {f"blk.{layer}.attn_norm": (1,) for layer in range(16)})
    told, true = said(path).graph, 2 * sum(kv_heads) * 64 * 2 * TOKENS
    print(f"LFM2 1.2B: scratch estimated {told / 2**30:.2f} GiB; all of its cache takes {true / 2**30:.2f}")
    assert told > 10 * true
PYTHON
"$folder/venv/bin/python" "$folder/see.py" 2> "$folder/said" || { cat "$folder/said" >&2; exit 1; }
