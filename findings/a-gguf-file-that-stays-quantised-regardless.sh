#!/usr/bin/env bash
# transformers: a GGUF file of Llama or Qwen3 is unpacked whole, after "the weights stay quantized regardless".
#
# Guess: what transformers says when it loads a file in 8 bits holds for the file that it loads: it stays in 8 bits.
# Seen:  weights stay packed for three architectures (qwen35, qwen35moe, lfm2) and where a kernel is at hand. All others
#        take an older way, which unpacks every matrix, and the sentence is printed for them, too, if a dtype other than
#        float32 is asked for. With no dtype they become float32 without a word, whatever the config says: a Llama of 8
#        billion in 4 bits, a file of 4.9 GB, takes 16 GB or 32.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q torch==2.13.0 transformers==5.23.0 gguf==0.19.0 accelerate==1.15.0 numpy==2.4.6
cat > "$folder/see.py" <<'PYTHON'
import logging
import os
import sys
from importlib.metadata import version

import gguf
import numpy
import torch
from transformers import AutoModelForCausalLM
from transformers.utils.logging import get_logger

LAYERS, WIDE, WORDS, HEADS = 2, 512, 64, 4
PROMISE = "stay quantized regardless"
print(*(f"{name} {version(name)}" for name in ("torch", "transformers", "gguf")))


def write(path, architecture):
    out = gguf.GGUFWriter(path, architecture)
    out.add_block_count(LAYERS)
    out.add_context_length(1024)
    out.add_embedding_length(WIDE)
    out.add_feed_forward_length(WIDE)
    out.add_head_count(HEADS)
    out.add_head_count_kv(HEADS)
    out.add_key_length(WIDE // HEADS)
    out.add_value_length(WIDE // HEADS)
    out.add_layer_norm_rms_eps(1e-5)
    out.add_rope_freq_base(1e4)
    out.add_vocab_size(WORDS)
    out.add_tokenizer_model("gpt2")
    out.add_token_list([f"t{number}" for number in range(WORDS)])
    out.add_token_types([1] * WORDS)
    out.add_token_merges(["t 0"])
    out.add_bos_token_id(0)
    out.add_eos_token_id(0)
    norms = {"attn_norm": WIDE, "ffn_norm": WIDE}
    if architecture == "qwen3":
        norms |= {"attn_q_norm": WIDE // HEADS, "attn_k_norm": WIDE // HEADS}
    matrices = ["attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down"]
    tensors = {"token_embd": (WORDS, WIDE), "output": (WORDS, WIDE), "output_norm": (WIDE,)}
    for layer in range(LAYERS):
        tensors |= {f"blk.{layer}.{name}": (WIDE, WIDE) for name in matrices}
        tensors |= {f"blk.{layer}.{name}": (side,) for name, side in norms.items()}
    for name, shape in tensors.items():
        numbers, kind = numpy.ones(shape, numpy.float32), gguf.GGMLQuantizationType.Q8_0
        packed = len(shape) == 2
        out.add_tensor(f"{name}.weight", gguf.quants.quantize(numbers, kind) if packed else numbers,
                       raw_dtype=kind if packed else None)
    out.write_header_to_file()
    out.write_kv_data_to_file()
    out.write_tensors_to_file()
    out.close()


class Heard(logging.Handler):
    def __init__(self):
        super().__init__()
        self.said = []

    def emit(self, record):
        self.said.append(record.getMessage())


heard = Heard()
get_logger("transformers").addHandler(heard)
for architecture in ("llama", "qwen3"):
    path = os.path.join(sys.path[0], f"{architecture}.gguf")
    write(path, architecture)
    for asked, expected in ({"dtype": torch.bfloat16}, 2), ({}, 4):
        heard.said.clear()
        model = AutoModelForCausalLM.from_pretrained(sys.path[0], gguf_file=os.path.basename(path), **asked)
        each = sum(one.nbytes for one in model.parameters()) / sum(one.numel() for one in model.parameters())
        promised = any(PROMISE in one for one in heard.said)
        print(f"{architecture}, {asked or 'no dtype'}: file {os.path.getsize(path) / 2**20:.1f} MiB,",
              f"{each:.2f} bytes a weight ({model.dtype}), 'the weights {PROMISE}': {promised}")
        assert abs(each - expected) < 0.01 and promised == bool(asked)
PYTHON
"$folder/venv/bin/python" "$folder/see.py" 2> "$folder/said" || { cat "$folder/said" >&2; exit 1; }
