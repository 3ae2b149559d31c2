#!/usr/bin/env bash
# Lightning: the size that a model's summary gives is that of its Trainer's precision, whatever the weights are.
#
# Guess: each parameter's elements times its width.
# Seen:  4 bytes for each, unless a Trainer is attached that was told "bf16-true" or the like: a model in bfloat16 is
#        said to take twice what it takes, one in float64 half. Attached, every weight has the Trainer's width, also one
#        that was kept in float32. Buffers are in no number: of a model with as many numbers in buffers the summary
#        gives half.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q torch==2.13.0 pytorch-lightning==2.6.6
cat > "$folder/see.py" <<'PYTHON'
from importlib.metadata import version

import pytorch_lightning
import torch
from pytorch_lightning.utilities.model_summary import ModelSummary

print(*(f"{name} {version(name)}" for name in ("torch", "pytorch-lightning")))
WIDE = 1000


class Model(pytorch_lightning.LightningModule):
    def __init__(self, buffers=False):
        super().__init__()
        self.layer = torch.nn.Linear(WIDE, WIDE, bias=False)
        if buffers:
            self.register_buffer("table", torch.zeros(WIDE, WIDE))


def show(name, model, expected):
    true = sum(one.nbytes for one in (*model.parameters(), *model.buffers())) / 1e6
    said = ModelSummary(model).model_size
    print(f"{name}: said {said:g} MB, takes {true:g}")
    assert (said, true) == expected


show("float32", Model(), (4, 4))
show("bfloat16", Model().bfloat16(), (4, 2))
show("float64", Model().double(), (4, 8))
show("float32 and buffers", Model(buffers=True), (4, 8))
trainer = pytorch_lightning.Trainer(
    accelerator="cpu", precision="bf16-true", logger=False, enable_checkpointing=False, enable_model_summary=False
)
model = Model()
trainer.strategy.connect(model)
model.trainer = trainer
show("float32 in a Trainer of bf16-true", model, (2, 4))
PYTHON
"$folder/venv/bin/python" "$folder/see.py" 2> "$folder/said" || { cat "$folder/said" >&2; exit 1; }
