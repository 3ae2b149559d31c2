#!/usr/bin/env bash
# transformers: optim="adamw_8bit" keeps the states of all embeddings in 32 bits, shared heads with them.
#
# Guess: Adam in 8 bits takes two bytes a parameter and a little for scales.
# Seen:  so it does when bitsandbytes is called by hand. The Trainer asks for 32 bits for whatever an
#        nn.Embedding holds, with nothing said in its settings: 8 bytes a parameter, and a matrix that is the head, too, is
#        an embedding's. Of Gemma 3 270M, 168 of 268 million parameters are that: 1.44 GiB of states, not 0.50.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q torch==2.13.0 transformers==5.23.0 accelerate==1.15.0 bitsandbytes==0.50.2
cat > "$folder/see.py" <<'PYTHON'
import sys
from importlib.metadata import version

import torch
from bitsandbytes.optim import AdamW8bit
from transformers import Gemma3ForCausalLM, Gemma3TextConfig, Trainer, TrainingArguments

print(*(f"{name} {version(name)}" for name in ("torch", "transformers", "bitsandbytes")))
CONFIG = Gemma3TextConfig(
    vocab_size=4096, hidden_size=128, intermediate_size=512, num_hidden_layers=2, num_attention_heads=2,
    num_key_value_heads=1, head_dim=64,
)


def states(optimizer, parameter):
    """Return the bytes that a parameter's two moments take, per number."""
    held = optimizer.state[parameter]
    return sum(held[name].nbytes for name in ("state1", "state2")) / parameter.numel()


example = {"input_ids": torch.zeros(8, dtype=torch.long), "labels": torch.zeros(8, dtype=torch.long)}
found = {}
for way in ("by hand", "adamw_8bit", "paged_adamw_8bit"):
    model = Gemma3ForCausalLM(CONFIG)
    assert model.lm_head.weight is model.model.embed_tokens.weight
    if way == "by hand":
        optimizer = AdamW8bit(model.parameters())
        model(**{name: one[None] for name, one in example.items()}).loss.backward()
        optimizer.step()
    else:
        settings = TrainingArguments(
            output_dir=sys.argv[1], optim=way, max_steps=1, per_device_train_batch_size=1, save_strategy="no",
            report_to=[], use_cpu=True,
        )
        trainer = Trainer(model, settings, train_dataset=[example])
        trainer.train()
        optimizer = trainer.optimizer
        optimizer = getattr(optimizer, "optimizer", optimizer)
    found[way] = [states(optimizer, one) for one in (model.lm_head.weight, model.model.layers[0].mlp.up_proj.weight)]
    print(f"{way}: {found[way][0]:.2f} bytes a parameter for the shared matrix, {found[way][1]:.2f} for others")
assert found == {"by hand": [2, 2], "adamw_8bit": [8, 2], "paged_adamw_8bit": [8, 2]}

with torch.device("meta"):
    whole = Gemma3ForCausalLM(
        Gemma3TextConfig(  # Gemma 3 270M
            vocab_size=262_144, hidden_size=640, intermediate_size=2048, num_hidden_layers=18,
            num_attention_heads=4, num_key_value_heads=1, head_dim=256,
        )
    )
shared, total = whole.lm_head.weight.numel(), sum(one.numel() for one in whole.parameters())
print(f"Gemma 3 270M: {shared:,} of {total:,} parameters, {(8 * shared + 2 * (total - shared)) / 2**30:.2f} GiB,",
      f"not {2 * total / 2**30:.2f}")
assert total == 268_098_176
PYTHON
"$folder/venv/bin/python" "$folder/see.py" "$folder/out" > "$folder/out.txt" 2> "$folder/said" ||
  { cat "$folder/out.txt" "$folder/said" >&2; exit 1; }
grep -v train_runtime "$folder/out.txt"
