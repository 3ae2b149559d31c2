#!/usr/bin/env bash
# hf-mem: the KV cache of a GGUF with stretched positions is that of the length before stretching.
#
# Guess: --experimental counts the cache for the file's context_length.
# Seen:  keys are found by how they end, and rope.scaling.original_context_length ends so too; the later of both
#        in the file counts, which is the original one as llama.cpp's converter writes them. A Phi-3 mini 128k
#        is said to want 1.5 GiB for 4,096 tokens; its 131,072 want 48. A file without that key is right.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q hf-mem==0.5.6 gguf==0.19.0
cat > "$folder/see.py" <<'PYTHON'
import sys
from importlib.metadata import version
from pathlib import Path

import gguf
import numpy
from hf_mem.gguf.metadata import parse_gguf_metadata

path = Path(sys.argv[1]) / "model.gguf"
LAYERS, WIDE, HEADS, TOKENS, BEFORE = 32, 3072, 32, 131_072, 4096
print(*(f"{name} {version(name)}" for name in ("hf-mem", "gguf")))
for stretched in (False, True):
    out = gguf.GGUFWriter(path, "phi3")
    out.add_context_length(TOKENS)
    if stretched:
        out.add_rope_scaling_orig_ctx_len(BEFORE)
    out.add_embedding_length(WIDE)
    out.add_block_count(LAYERS)
    out.add_head_count(HEADS)
    out.add_head_count_kv(HEADS)
    out.add_tensor("one", numpy.zeros(4, numpy.float32))
    out.write_header_to_file()
    out.write_kv_data_to_file()
    out.write_tensors_to_file()
    out.close()
    said = parse_gguf_metadata(path.read_bytes(), experimental=True).kv_cache
    true = 2 * LAYERS * WIDE * 2 * TOKENS
    print(f"original_context_length {'given' if stretched else 'not given'}: said {said.max_model_len:,} tokens,",
          f"{said.cache_size / 2**30:g} GiB; {TOKENS:,} take {true / 2**30:g}")
    assert said.max_model_len == (BEFORE if stretched else TOKENS)
    assert said.cache_size * TOKENS == true * said.max_model_len
PYTHON
"$folder/venv/bin/python" "$folder/see.py" "$folder"
