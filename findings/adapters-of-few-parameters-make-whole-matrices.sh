#!/usr/bin/env bash
# peft: adapters of a hundredth of a matrix make several whole matrices each time they run.
#
# Guess: what an adapter of few parameters adds to a layer's work is small too, as LoRA's.
# Seen:  DoRA, LoHa, LoKr, FourierFT, HRA and BOFT build matrices of the weight's size at each call, if it is for
#        one token: 2 to 5 at once as scratch. In training each layer keeps one of them for the backward pass,
#        BOFT two, HRA of rank r r + 2. BOFT has a buffer as large as the matrix for each adapted layer besides,
#        at all times. VeRA and IA3 do as LoRA does.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q torch==2.13.0 transformers==5.23.0 accelerate==1.15.0 peft==0.21.0
cat > "$folder/see.py" <<'PYTHON'
import weakref
from importlib.metadata import version

import peft
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

WIDE, TOKENS = 512, 4
MATRIX = WIDE * WIDE * 4
print(*(f"{name} {version(name)}" for name in ("torch", "peft")))


class Counted(TorchDispatchMode):
    """Count the bytes of storages that appear while it is on, until they are freed."""

    def __init__(self):
        super().__init__()
        self.known, self.now, self.peak = {}, 0, 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        for one in tree_leaves((args, kwargs)):
            if isinstance(one, torch.Tensor):
                self.known.setdefault(one.untyped_storage()._cdata, 0)
        out = function(*args, **(kwargs or {}))
        for one in tree_leaves(out):
            if isinstance(one, torch.Tensor) and one.untyped_storage()._cdata not in self.known:
                storage = one.untyped_storage()
                self.known[storage._cdata] = storage.nbytes()
                self.now += storage.nbytes()
                self.peak = max(self.peak, self.now)
                weakref.finalize(storage, self.freed, storage._cdata)
        return out

    def freed(self, which):
        self.now -= self.known.pop(which, 0)


class Two(torch.nn.Module):
    """Two layers of one shape."""

    def __init__(self):
        super().__init__()
        self.a = torch.nn.Linear(WIDE, WIDE, bias=False)
        self.b = torch.nn.Linear(WIDE, WIDE, bias=False)

    def forward(self, x):
        return self.b(self.a(x))


def kept(model, x):
    """Return the bytes that autograd keeps of one call, parameters and buffers aside."""
    own = {one.untyped_storage()._cdata for one in [*model.parameters(), *model.buffers()]}
    found = {}

    def pack(tensor):
        storage = tensor.untyped_storage()
        if storage._cdata not in own:
            found[storage._cdata] = storage
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        out = model(x)
    size = sum(one.nbytes() for one in found.values())
    del out
    return size


def scratch(model, x):
    with torch.no_grad(), Counted() as counted:
        model(x)
    return counted.peak


both = {"target_modules": ["a", "b"]}
KINDS = {  # in matrices: scratch of a call, what two layers keep for the backward pass, buffers of two layers
    "LoRA": (peft.LoraConfig(r=4, **both), 0, 0, 0),
    "VeRA": (peft.VeraConfig(r=4, **both), 0, 0, 0),
    "IA3": (peft.IA3Config(feedforward_modules=[], **both), 0, 0, 0),
    "DoRA": (peft.LoraConfig(r=4, use_dora=True, **both), 3, 2, 0),
    "LoHa": (peft.LoHaConfig(r=4, **both), 3, 2, 0),
    "LoKr": (peft.LoKrConfig(r=4, **both), 2, 2, 0),
    "FourierFT": (peft.FourierFTConfig(n_frequency=100, **both), 5, 2, 0),
    "HRA": (peft.HRAConfig(r=4, **both), 4, 12, 0),
    "BOFT": (peft.BOFTConfig(boft_block_size=4, **both), 4, 4, 2),
}
x = torch.ones(1, TOKENS, WIDE, requires_grad=True)  # as a layer in the midst of a model gets it
for name, (config, *expected) in KINDS.items():
    model = peft.get_peft_model(Two(), config)
    own = sum(one.numel() for one in model.parameters() if one.requires_grad) / (2 * WIDE * WIDE)
    buffers = {one.untyped_storage()._cdata: one.untyped_storage().nbytes() for one in model.buffers()}
    found = [scratch(model.eval(), x), kept(model.train(), x), sum(buffers.values())]
    found = [one / MATRIX for one in found]
    print(f"{name:9}: {own:6.2%} of the parameters; scratch {found[0]:.2f} matrices,",
          f"kept for backward {found[1]:.2f}, buffers {found[2]:.2f}")
    assert all(abs(seen - whole) < 0.1 for seen, whole in zip(found, expected, strict=True)), found
PYTHON
"$folder/venv/bin/python" "$folder/see.py" 2> "$folder/said" || { cat "$folder/said" >&2; exit 1; }
