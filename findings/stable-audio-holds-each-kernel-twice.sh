#!/usr/bin/env bash
# diffusers: Stable Audio's VAE holds each kernel twice, and only one of both is counted or cast.
#
# Guess: a model takes its parameters and buffers.
# Seen:  AutoencoderOobleck's convolutions have two parameters each, a direction and a length, and keep their
#        product as a plain attribute (torch.nn.utils.weight_norm): twice the checkpoint. No sum over
#        parameters and buffers has it, and half() leaves it in fp32 until its layer is called: after half() three
#        quarters are left, and of an encoder that is never called it stays so. EnCodec in transformers, made
#        with torch.nn.utils.parametrizations.weight_norm, keeps nothing.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q torch==2.13.0 transformers==5.23.0 diffusers==0.42.1
cat > "$folder/see.py" <<'PYTHON'
from importlib.metadata import version

import torch
from diffusers import AutoencoderOobleck
from transformers import EncodecConfig, EncodecModel

print(*(f"{name} {version(name)}" for name in ("torch", "transformers", "diffusers")))


def size(tensors):
    stored = [one.untyped_storage() for one in tensors]
    return sum({one._cdata: one.nbytes() for one in stored}.values())


def counted(model):
    return size([*model.parameters(), *model.buffers()])


def held(model):
    """Return the bytes of all tensors that the model's modules refer to."""
    plain = [one for part in model.modules() for one in vars(part).values() if isinstance(one, torch.Tensor)]
    return size([*model.parameters(), *model.buffers(), *plain])


@torch.no_grad()
def see(model, call):
    call()
    whole, real = counted(model), held(model)
    print(f"{type(model).__name__}: parameters and buffers {whole:,} bytes, held {real:,}")
    model.half()
    left = held(model)
    call()
    again = held(model)
    print(f"  after half(): counted {counted(model) / whole:.2f}, held {left / real:.2f};",
          f"after a decode in fp16: held {again / real:.2f}")
    return real / whole, left / real, again / real


oobleck = AutoencoderOobleck(  # Stable Audio's VAE, a quarter as wide
    encoder_hidden_size=32, decoder_channels=32, decoder_input_channels=64, audio_channels=2
).eval()
twice, cast, called = see(oobleck, lambda: oobleck.decode(torch.zeros(1, 64, 2, dtype=oobleck.dtype)))
assert twice > 1.95 and 0.74 < cast < 0.76 and 0.6 < called < 0.65  # the encoder was not called
encodec = EncodecModel(EncodecConfig()).eval()
codes = torch.zeros(1, 1, 2, 8, dtype=torch.long)
once, cast, called = see(encodec, lambda: encodec.decode(codes, [None]))
assert once == 1 and abs(cast - 0.5) < 0.001 and called == cast
PYTHON
"$folder/venv/bin/python" "$folder/see.py" 2> "$folder/said" || { cat "$folder/said" >&2; exit 1; }
