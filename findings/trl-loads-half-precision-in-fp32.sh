#!/usr/bin/env bash
# trl: a trainer that is given a model's name loads it in float32, whatever it was saved in, and so DPO's reference.
#
# Guess: SFTTrainer(model="name") trains what from_pretrained("name") returns, which in transformers 5 has the file's
#        dtype.
# Seen:  trl sets float32 where model_init_kwargs names no dtype: twice the weights, gradients and Adam states of a
#        bfloat16 checkpoint, and for DPO a reference in float32, which is never trained. A model that is handed in
#        stays as it is, and its reference follows it. {"dtype": "auto"} brings the checkpoint's own.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q torch==2.13.0 transformers==5.23.0 accelerate==1.15.0 datasets==5.2.0 trl==1.16.0
cat > "$folder/see.py" <<'PYTHON'
import sys
import tempfile
from importlib.metadata import version

import torch
from datasets import Dataset
from tokenizers import Tokenizer, models
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
from trl import DPOConfig, DPOTrainer, SFTConfig, SFTTrainer

print(*(f"{name} {version(name)}" for name in ("torch", "transformers", "trl")))
folder = tempfile.mkdtemp(dir=sys.path[0])
config = LlamaConfig(
    vocab_size=64, hidden_size=32, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2, pad_token_id=0,
)
LlamaForCausalLM(config).to(torch.bfloat16).save_pretrained(folder)
words = Tokenizer(models.WordLevel({"[PAD]": 0, "[UNK]": 1, "[EOS]": 2}, unk_token="[UNK]"))
words = PreTrainedTokenizerFast(tokenizer_object=words, pad_token="[PAD]", unk_token="[UNK]", eos_token="[EOS]")
PLAIN = {"output_dir": folder, "report_to": [], "use_cpu": True, "bf16": False}
texts = Dataset.from_dict({"text": ["a b"] * 4})
pairs = Dataset.from_dict({"prompt": ["a"] * 4, "chosen": [" b"] * 4, "rejected": [" c"] * 4})
loaded = AutoModelForCausalLM.from_pretrained(folder)
given = {"SFT by name": SFTTrainer(folder, SFTConfig(**PLAIN), train_dataset=texts, processing_class=words)}
for name, model in (("DPO by name", folder), ("DPO of a model", loaded)):
    given[name] = DPOTrainer(model, args=DPOConfig(**PLAIN), train_dataset=pairs, processing_class=words)
print(f"from_pretrained: {loaded.dtype}")
assert loaded.dtype == torch.bfloat16
for name, trainer in given.items():
    reference = getattr(trainer, "ref_model", None)
    print(f"{name}: {trainer.model.dtype}" + (f", reference {reference.dtype}" if reference is not None else ""))
    assert trainer.model.dtype == (torch.bfloat16 if name == "DPO of a model" else torch.float32)
    assert name == "SFT by name" or reference.dtype == trainer.model.dtype
chosen = SFTConfig(**PLAIN, model_init_kwargs={"dtype": "auto"})
told = SFTTrainer(folder, chosen, train_dataset=texts, processing_class=words)
print(f"SFT by name, told: {told.model.dtype}")
assert told.model.dtype == torch.bfloat16
PYTHON
"$folder/venv/bin/python" "$folder/see.py" 2> "$folder/said" || { cat "$folder/said" >&2; exit 1; }
