#!/usr/bin/env bash
# transformers: the Trainer gathers BART's encoder states beside the two numbers that a classifier says.
#
# Guess: evaluation keeps the logits of every example: two numbers each for a classifier with two labels.
# Seen:  it keeps whatever the model returns but the loss and the cache. BartForSequenceClassification returns its
#        encoder's last states, so tokens x width more are gathered for every example, on the device until the end
#        unless eval_accumulation_steps is set: for BART large 2 MiB for each of 512 tokens, 20 GiB for 10,000 of
#        them, beside 80 kB of logits. The model's config says what to leave out (keys_to_ignore_at_inference), and
#        names the cache alone.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q torch==2.13.0 transformers==5.23.0 accelerate==1.15.0
cat > "$folder/see.py" <<'PYTHON'
import sys
import tempfile
from importlib.metadata import version

import torch
import transformers
from transformers import Trainer, TrainingArguments

MANY, TOKENS, WIDE = 16, 128, 64
print(*(f"{name} {version(name)}" for name in ("torch", "transformers")))
SMALL = {
    "vocab_size": 64, "d_model": WIDE, "encoder_layers": 1, "decoder_layers": 1, "encoder_ffn_dim": 64,
    "pad_token_id": 1, "decoder_ffn_dim": 64, "encoder_attention_heads": 2, "decoder_attention_heads": 2,
    "num_labels": 2, "bos_token_id": 0, "eos_token_id": 2, "decoder_start_token_id": 2, "forced_eos_token_id": 2,
}
BERT = {
    "vocab_size": 64, "hidden_size": WIDE, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64,
}
data = [{"input_ids": torch.tensor([5] * (TOKENS - 1) + [2]), "labels": torch.tensor(0)} for _ in range(MANY)]
options = TrainingArguments(tempfile.mkdtemp(dir=sys.path[0]), report_to=[], use_cpu=True)
for kind, settings in (("Bert", BERT), ("Bart", SMALL)):
    config = getattr(transformers, f"{kind}Config")(**settings)
    model = getattr(transformers, f"{kind}ForSequenceClassification")(config)
    for ignored in (None, ["encoder_last_hidden_state"]):
        kept = Trainer(model, options).predict(data, ignore_keys=ignored).predictions
        kept = kept if isinstance(kept, tuple) else (kept,)
        size = sum(one.nbytes for one in kept)
        print(f"{kind}, told to leave out {ignored}: {[one.shape for one in kept]}, {size:,} bytes")
        assert kept[0].shape == (MANY, 2) and len(kept) == (2 if kind == "Bart" and not ignored else 1)
        assert len(kept) == 1 or kept[1].shape == (MANY, TOKENS, WIDE)
PYTHON
"$folder/venv/bin/python" "$folder/see.py" 2> "$folder/said" || { cat "$folder/said" >&2; exit 1; }
