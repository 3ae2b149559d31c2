#!/usr/bin/env bash
# diffusers, peft: one LoRA file is loaded in two dtypes, neither of them the file's.
#
# Guess: an adapter takes on the device what its file takes.
# Seen:  diffusers casts it to the model's dtype: a fp32 file halves, on an fp32 model a fp16 file doubles. The
#        same weights loaded by peft on a fp16 or bfloat16 model are fp32 (autocast_adapter_dtype, on by
#        default), so a fp16 file doubles there, though diffusers uses peft's layers, too.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q torch==2.13.0 transformers==5.23.0 accelerate==1.15.0 diffusers==0.42.1 peft==0.21.0
cat > "$folder/see.py" <<'PYTHON'
import sys
from importlib.metadata import version

import torch
from diffusers import UNet2DConditionModel
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file

print(*(f"{name} {version(name)}" for name in ("torch", "diffusers", "peft")))
HALF, BRAIN, FULL = torch.float16, torch.bfloat16, torch.float32


def unet(dtype):
    return UNet2DConditionModel(
        block_out_channels=(32, 64), down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"), cross_attention_dim=64, sample_size=8,
        norm_num_groups=8, attention_head_dim=8,
    ).to(dtype)


def adapter(model):
    found = {one.dtype for name, one in model.named_parameters() if "lora" in name}
    assert len(found) == 1
    return found.pop()


for file in (HALF, BRAIN, FULL):
    made = get_peft_model(unet(FULL), LoraConfig(r=4, target_modules=["to_q"]))
    for name, one in made.named_parameters():
        if "lora" in name:
            one.data = one.data.to(file)
    made.save_pretrained(sys.argv[1])
    weights = load_file(f"{sys.argv[1]}/adapter_model.safetensors")
    assert {one.dtype for one in weights.values()} == {file}
    plain = {name.removeprefix("base_model.model."): one for name, one in weights.items()}
    for base in (HALF, BRAIN, FULL):
        model = unet(base)
        model.load_lora_adapter(dict(plain), prefix=None)
        by_diffusers, by_peft = adapter(model), adapter(PeftModel.from_pretrained(unet(base), sys.argv[1]))
        print(f"file {file}, model {base}: diffusers {by_diffusers}, peft {by_peft}")
        assert by_diffusers is base and by_peft is FULL
PYTHON
"$folder/venv/bin/python" "$folder/see.py" "$folder/adapter" 2> "$folder/said" || { cat "$folder/said" >&2; exit 1; }
