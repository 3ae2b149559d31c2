#!/usr/bin/env bash
# transformers: SmolVLM and Idefics 3 make more tokens of an icon than of a photograph.
#
# Guess: an image is cut into as many tiles as it fills; one of 64 x 64 is one tile, a larger one costs more.
# Seen:  each image is first enlarged (or reduced) until its longer side is four tiles, and what counts is its
#        shape alone: 17 tiles for a square of any size, 13 for 4000 x 3000, 9 for 2048 x 1024. At the 81
#        tokens of a tile of SmolVLM Instruct, an icon is 1,377. Llama 3.2 Vision pads each image to four tiles, of which an
#        icon fills one. LLaVA-OneVision does as guessed: 2 tiles for the icon, 31 for the photograph.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q torch==2.13.0 transformers==5.23.0 pillow==13.0.0 numpy==2.4.6
cat > "$folder/see.py" <<'PYTHON'
from importlib.metadata import version

from PIL import Image
from transformers.models.idefics3.image_processing_pil_idefics3 import Idefics3ImageProcessorPil
from transformers.models.llava_onevision.image_processing_pil_llava_onevision import LlavaOnevisionImageProcessorPil
from transformers.models.mllama.image_processing_pil_mllama import MllamaImageProcessorPil
from transformers.models.smolvlm.image_processing_pil_smolvlm import SmolVLMImageProcessorPil

print(*(f"{name} {version(name)}" for name in ("transformers", "pillow")))
SETTINGS = {"size": {"longest_edge": 4 * 384}, "max_image_size": {"longest_edge": 384}}  # SmolVLM Instruct
SIZES = ((64, 64), (2048, 1024), (2048, 2048), (4000, 3000))
KINDS = {
    "SmolVLM": (SmolVLMImageProcessorPil(**SETTINGS), (17, 9, 17, 13)),
    "Idefics 3": (Idefics3ImageProcessorPil(), (17, 9, 17, 13)),
    "Llama 3.2 Vision": (MllamaImageProcessorPil(), (4, 4, 4, 4)),
    "LLaVA-OneVision": (LlavaOnevisionImageProcessorPil(), (2, 19, 37, 31)),
}
for name, (processor, expected) in KINDS.items():
    found = []
    for size in SIZES:
        pixels = processor(Image.new("RGB", size), return_tensors="pt")["pixel_values"]
        found.append(pixels.shape[-4])
    print(f"{name}:", ", ".join(f"{wide} x {high}: {tiles} tiles" for (wide, high), tiles in zip(SIZES, found)))
    assert tuple(found) == expected
PYTHON
"$folder/venv/bin/python" "$folder/see.py" 2> "$folder/said" || { cat "$folder/said" >&2; exit 1; }
