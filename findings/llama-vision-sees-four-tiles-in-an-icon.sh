#!/usr/bin/env bash
# transformers: Llama 3.2 Vision keeps four tiles of every image for as long as it writes, if one is all there is.
#
# Guess: a picture of one tile costs one: 1,601 tokens in the vision model, and as many in each layer that looks at it.
# Seen:  whatever the picture, four tiles are computed, and their 6,404 states are the cache of each layer that looks at
#        them, three quarters of it masked padding. For the 11B that is 200 MiB a picture in bfloat16 where 50 would do,
#        for the 90B 500; a mask of 6,432 x 6,432 pairs goes with it through the vision model. Where one of two prompts has
#        two pictures the other is padded to eight tiles.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q torch==2.13.0 transformers==5.23.0 numpy==2.4.6 pillow==13.0.0
cat > "$folder/see.py" <<'PYTHON'
from importlib.metadata import version

import numpy
import torch
from PIL import Image
from transformers import MllamaConfig, MllamaForConditionalGeneration, MllamaImageProcessorPil

SIDE, PATCH, IMAGE, WORDS = 56, 14, 127, 128
print(*(f"{name} {version(name)}" for name in ("torch", "transformers")))
vision = {
    "image_size": SIDE, "patch_size": PATCH, "hidden_size": 32, "intermediate_size": 32, "attention_heads": 2,
    "num_hidden_layers": 2, "num_global_layers": 1, "intermediate_layers_indices": [1], "vision_output_dim": 64,
    "max_num_tiles": 4, "supported_aspect_ratios": [[1, 1], [1, 2], [1, 3], [1, 4], [2, 1], [2, 2], [3, 1], [4, 1]],
}
text = {
    "vocab_size": WORDS, "hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 4, "pad_token_id": 0,
    "num_attention_heads": 2, "num_key_value_heads": 2, "cross_attention_layers": [1, 3], "bos_token_id": 1,
    "eos_token_id": 2,
}
config = MllamaConfig(vision_config=vision, text_config=text, image_token_index=IMAGE)
model = MllamaForConditionalGeneration(config).eval()
read = MllamaImageProcessorPil(max_image_tiles=4, size={"height": SIDE, "width": SIDE})
tile = (SIDE // PATCH) ** 2 + 1


def kept(pictures):
    """Return the tiles that prompts are said to have, and the tokens of each layer's cache."""
    images = [[Image.fromarray(numpy.zeros((side, side, 3), numpy.uint8)) for side in row] for row in pictures]
    made = read(images, return_tensors="pt")
    longest = max(map(len, pictures))
    ids = torch.full((len(pictures), longest + 2), 5)
    looked = torch.zeros(len(pictures), ids.shape[1], longest, 4, dtype=torch.long)
    for row, tiles in enumerate(made.pop("num_tiles")):
        for place, count in enumerate(tiles):
            ids[row, place] = IMAGE
            looked[row, :, place, :count] = 1
    with torch.no_grad():
        out = model(input_ids=ids, attention_mask=torch.ones_like(ids), cross_attention_mask=looked, **made)
    return looked[:, 0].sum(-1).tolist(), [layer.keys.shape[-2] for layer in out.past_key_values.layers]


for pictures, expected in (([[SIDE // 4]], 4), ([[SIDE]], 4), ([[2 * SIDE]], 4), ([[SIDE], [SIDE, SIDE]], 8)):
    tiles, tokens = kept(pictures)
    print(f"pictures of {pictures} pixels a side: tiles {tiles}, tokens in each layer's cache {tokens};",
          f"one tile is {tile}")
    assert tokens[1] == tokens[3] == expected * tile and tokens[0] == tokens[2] < tile
assert kept([[SIDE // 4]])[0] == [[1]]
for name, layers in (("11B", 8), ("90B", 20)):
    print(f"{name}: {layers * 4 * 1601 * 8 * 128 * 2 * 2 / 2**20:.0f} MiB a picture")
PYTHON
"$folder/venv/bin/python" "$folder/see.py" 2> "$folder/said" || { cat "$folder/said" >&2; exit 1; }
