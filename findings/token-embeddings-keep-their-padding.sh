#!/usr/bin/env bash
# sentence-transformers: embeddings of tokens are views into padded batches: one long text keeps room for 32.
#
# Guess: encode(..., output_value="token_embeddings") returns for each text its own tokens' embeddings, cut to its
#        length.
# Seen:  they are cut as views: the batch's tensor, as long as its longest text, lives as long as any of its results,
#        on the device, and nothing is moved to host memory on the way. 31 single words beside a text of 400 tokens
#        hold 30 times what is returned. What is asked for by output_value=None is held in the same way.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q torch==2.13.0 transformers==5.23.0 sentence-transformers==6.2.0
cat > "$folder/see.py" <<'PYTHON'
import os
import sys
from importlib.metadata import version

import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Pooling, Transformer
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

WIDE, LONG, MANY = 64, 400, 32
print(*(f"{name} {version(name)}" for name in ("torch", "sentence-transformers")))
folder = os.path.join(sys.path[0], "model")
words = Tokenizer(models.WordLevel({"[PAD]": 0, "[UNK]": 1, "one": 2}, unk_token="[UNK]"))
words.pre_tokenizer = pre_tokenizers.Whitespace()
PreTrainedTokenizerFast(tokenizer_object=words, pad_token="[PAD]", unk_token="[UNK]").save_pretrained(folder)
config = BertConfig(
    vocab_size=8, hidden_size=WIDE, num_hidden_layers=1, num_attention_heads=2, intermediate_size=64,
)
BertModel(config).save_pretrained(folder)
model = SentenceTransformer(modules=[Transformer(folder), Pooling(WIDE)], device="cpu")
for name, texts in (("equal texts", ["one " * LONG] * MANY), ("one long", ["one " * LONG] + ["one"] * (MANY - 1))):
    found = model.encode(texts, output_value="token_embeddings", batch_size=MANY)
    returned = sum(one.nbytes for one in found)
    held = sum({one.untyped_storage()._cdata: one.untyped_storage().nbytes() for one in found}.values())
    print(f"{name}: {returned:,} bytes returned, {held:,} held")
    assert [len(one) for one in found] == [text.count("one") for text in texts] and isinstance(found[0], torch.Tensor)
    assert held == MANY * LONG * WIDE * 4 and returned == sum(len(one) for one in found) * WIDE * 4
PYTHON
"$folder/venv/bin/python" "$folder/see.py" 2> "$folder/said" || { cat "$folder/said" >&2; exit 1; }
