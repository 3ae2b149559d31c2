#!/usr/bin/env bash
# diffusers and transformers: a pipeline saved in half precision loads in two dtypes, if none is named.
#
# Guess: without torch_dtype all of a pipeline comes as its files are, or all in float32.
# Seen:  diffusers makes its own parts float32 (UNet or transformer, VAE), transformers loads its parts as their files
#        are: a pipeline saved in float16 has a text encoder in float16 and a UNet in float32, twice its file. The
#        pipeline's dtype says float16, and its first step fails on the mixture. FLUX.1's transformer takes 44 GiB so,
#        not 22, beside a T5 of 9.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q torch==2.13.0 diffusers==0.42.1 transformers==5.23.0 accelerate==1.15.0
cat > "$folder/see.py" <<'PYTHON'
import tempfile
from importlib.metadata import version

import torch
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel

print(*(f"{name} {version(name)}" for name in ("torch", "diffusers", "transformers")))
NONE = dict(tokenizer=None, safety_checker=None, feature_extractor=None)
unet = UNet2DConditionModel(
    sample_size=8, block_out_channels=(32, 64), layers_per_block=1, cross_attention_dim=32, norm_num_groups=8,
    down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"), up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
)
vae = AutoencoderKL(
    block_out_channels=(32, 64), down_block_types=["DownEncoderBlock2D"] * 2, up_block_types=["UpDecoderBlock2D"] * 2,
    latent_channels=4, norm_num_groups=8,
)
text_encoder = CLIPTextModel(
    CLIPTextConfig(hidden_size=32, intermediate_size=64, num_attention_heads=4, num_hidden_layers=2, vocab_size=1000)
)
for dtype in (torch.float16, torch.bfloat16):
    pipe = StableDiffusionPipeline(
        vae=vae, text_encoder=text_encoder, unet=unet, scheduler=DDIMScheduler(), requires_safety_checker=False, **NONE
    ).to(dtype)
    with tempfile.TemporaryDirectory() as folder:
        pipe.save_pretrained(folder)
        loaded = StableDiffusionPipeline.from_pretrained(folder, **NONE)
        named = StableDiffusionPipeline.from_pretrained(folder, torch_dtype=dtype, **NONE)
    found = {part: getattr(loaded, part).dtype for part in ("text_encoder", "unet", "vae")}
    print(f"saved in {dtype}: {', '.join(f'{part} {one}' for part, one in found.items())}; pipe.dtype {loaded.dtype}")
    assert found == {"text_encoder": dtype, "unet": torch.float32, "vae": torch.float32} and loaded.dtype == dtype
    assert {getattr(named, part).dtype for part in found} == {dtype}
    states = [one.text_encoder(torch.zeros(1, 77, dtype=torch.long))[0] for one in (loaded, named)]
    for name, one, state in (("without", loaded, states[0]), ("with", named, states[1])):
        one.set_progress_bar_config(disable=True)
        try:
            one(prompt_embeds=state, negative_prompt_embeds=state, num_inference_steps=1, height=16, width=16)
            said = "runs"
        except RuntimeError as error:
            said = str(error)
        print(f"{name} torch_dtype: {said}")
        assert (said == "runs") == (name == "with")
PYTHON
"$folder/venv/bin/python" "$folder/see.py" 2> "$folder/said" || { cat "$folder/said" >&2; exit 1; }
