#!/usr/bin/env bash
# transformers: FP8 is loaded whole on any card before the RTX 40, and gpt-oss on any card that lacks a package.
#
# Guess: what is saved in a byte a weight, or in half of one, takes that, or is refused where it cannot be run.
# Seen:  below compute capability 8.9 (RTX 30, A100) every weight in blocks of FP8 is made the model's dtype where it is
#        loaded, after a line of warning: Qwen3 32B, a file of 34 GB, takes 66. MXFP4 stays so from 7.5 on, but with
#        the package kernels alone, which transformers does not bring: without it gpt-oss 20B takes 42 GB, not 14.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q torch==2.13.0 transformers==5.23.0 accelerate==1.15.0 safetensors==0.8.0 numpy==2.4.6 triton==3.9.0
cat > "$folder/see.py" <<'PYTHON'
import json
import logging
import os
import sys
from collections import Counter
from importlib.metadata import version

os.environ["CUDA_VISIBLE_DEVICES"] = ""

import torch
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM, GptOssConfig, GptOssForCausalLM, Qwen3Config, Qwen3ForCausalLM
from transformers.utils.logging import get_logger

print(*(f"{name} {version(name)}" for name in ("torch", "transformers", "safetensors")))
SMALL = {"vocab_size": 256, "hidden_size": 256, "num_hidden_layers": 2, "head_dim": 64, "num_attention_heads": 4,
         "num_key_value_heads": 4, "intermediate_size": 512, "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 2}
IN_FP8 = {"quant_method": "fp8", "activation_scheme": "dynamic", "weight_block_size": [128, 128], "fmt": "e4m3"}
IN_MXFP4 = {"quant_method": "mxfp4", "modules_to_not_convert": ["lm_head", "model.embed_tokens", "self_attn", "router"]}


class Heard(logging.Handler):
    said = []

    def emit(self, record):
        self.said.append(record.getMessage())


def save(name, model, quantised, pack):
    """Write a model in blocks; return its folder and the bytes of its weights in the file."""
    folder, tensors = os.path.join(sys.path[0], name), {}
    os.mkdir(folder)
    for key, weight in model.to(torch.bfloat16).state_dict().items():
        tensors |= pack(key, weight) or {key: weight.clone()}
    save_file(tensors, os.path.join(folder, "model.safetensors"), metadata={"format": "pt"})
    config = model.config.to_dict() | {
        "architectures": [type(model).__name__], "dtype": "bfloat16", "quantization_config": quantised,
    }  # fmt: skip
    with open(os.path.join(folder, "config.json"), "w") as file:
        json.dump(config, file)
    return folder, sum(one.nbytes for one in tensors.values())


def in_fp8(key, weight):
    if key.endswith("proj.weight"):
        scales = torch.ones(weight.shape[0] // 128, weight.shape[1] // 128)
        return {key: weight.to(torch.float8_e4m3fn), f"{key}_scale_inv": scales}


def in_mxfp4(key, weight):
    if key.endswith(("experts.gate_up_proj", "experts.down_proj")):
        experts, rows, columns = weight.shape
        blocks = torch.zeros(experts, columns, rows // 32, 16, dtype=torch.uint8)
        return {f"{key}_blocks": blocks, f"{key}_scales": torch.full(blocks.shape[:3], 127, dtype=torch.uint8)}


def load(folder, card):
    """Return the bytes of each dtype of a model that is loaded where such a card seems to be."""
    Heard.said.clear()
    real = torch.cuda.is_available, torch.cuda.get_device_capability
    if card:
        torch.cuda.is_available, torch.cuda.get_device_capability = lambda: True, lambda *args: card
    try:
        model = AutoModelForCausalLM.from_pretrained(folder, device_map={"": "cpu"})
    finally:
        torch.cuda.is_available, torch.cuda.get_device_capability = real
    sizes = Counter()
    for one in model.parameters():
        sizes[str(one.dtype).removeprefix("torch.")] += one.nbytes
    return sizes, any("dequantiz" in one for one in Heard.said)


get_logger("transformers").addHandler(Heard())
folder, size = save("fp8", Qwen3ForCausalLM(Qwen3Config(**SMALL)), IN_FP8, in_fp8)
for card in (None, (8, 0), (8, 6), (8, 9), (9, 0)):
    sizes, warned = load(folder, card)
    print(f"FP8, {'no card' if card is None else 'capability %d.%d' % card}: file {size:,} bytes, {dict(sizes)},",
          f"warned: {warned}")
    stays = card is not None and card >= (8, 9)
    assert ("float8_e4m3fn" in sizes) == stays == (not warned)
    assert sum(sizes.values()) == size if stays else sum(sizes.values()) > 1.8 * size
experts = {"num_local_experts": 8, "num_experts_per_tok": 2, "layer_types": ["full_attention"] * 2}
folder, size = save("mxfp4", GptOssForCausalLM(GptOssConfig(**SMALL, **experts)), IN_MXFP4, in_mxfp4)
sizes, warned = load(folder, None)
print(f"MXFP4 without the package kernels: file {size:,} bytes, {dict(sizes)}, warned: {warned}")
assert set(sizes) == {"bfloat16"} and sizes["bfloat16"] > 2.5 * size and warned
assert any("requires the `kernels` package" in one for one in Heard.said)
PYTHON
"$folder/venv/bin/python" "$folder/see.py" 2> "$folder/said" || { cat "$folder/said" >&2; exit 1; }
