#!/usr/bin/env bash
# transformers: a Mistral 3 whose text config shares no head has one that is shared all the same.
#
# Guess: whether the output matrix is the embedding's own is said by the text model's config, as for
#        LLaVA: where that says tie_word_embeddings=False, there are two matrices.
# Seen:  Mistral3Config's own default is True and goes before its text config's False. Built from a
#        config that says nothing on the outside, the model has vocabulary x width parameters fewer:
#        23.34 instead of 24.01 billion at the shapes of Mistral Small 3.2. LlavaConfig's is False.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q torch==2.13.0 transformers==5.23.0
cat > "$folder/see.py" <<'PYTHON'
import torch
import transformers

TEXT = {
    "model_type": "mistral", "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 1,
    "num_attention_heads": 4, "num_key_value_heads": 4, "head_dim": 16, "vocab_size": 1000,
    "tie_word_embeddings": False,
}
SEES = {
    "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2,
    "image_size": 28, "patch_size": 14,
}
print("transformers", transformers.__version__, "torch", torch.__version__)


def count(name, vision, **outside):
    config = getattr(transformers, f"{name}Config")(
        text_config=dict(TEXT), vision_config={"model_type": vision, **SEES}, **outside
    )
    assert config.text_config.tie_word_embeddings is False
    with torch.device("meta"):
        model = getattr(transformers, f"{name}ForConditionalGeneration")(config)
    return config.tie_word_embeddings, sum(part.numel() for part in model.parameters())


for name, vision in (("Mistral3", "pixtral"), ("Llava", "clip_vision_model")):
    silent, told = count(name, vision), count(name, vision, tie_word_embeddings=False)
    print(f"{name}: outside by default {silent[0]}, {silent[1]} parameters; False: {told[1]}")
    missing = told[1] - silent[1]
    assert (silent[0], missing) == ((True, 64 * 1000) if name == "Mistral3" else (False, 0))
print("as seen")
PYTHON
"$folder/venv/bin/python" "$folder/see.py" 2> "$folder/said" || { cat "$folder/said" >&2; exit 1; }
