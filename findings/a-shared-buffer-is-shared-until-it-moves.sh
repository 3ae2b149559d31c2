#!/usr/bin/env bash
# torch: a table that all layers share is one for each of them after to() or half(); a shared parameter stays one.
#
# Guess: what modules share they share on the device, too, as they do a tied weight.
# Seen:  a parameter keeps its identity where it is moved or cast; a buffer is replaced at each module that has it. A
#        table of angles for 131,072 positions that 32 layers share, 64 MiB in float32, takes 64 MiB on the CPU, and on
#        the device 2 GiB, or 1 GiB in half precision. Until then a count of storages shows one. Where the module that
#        holds it is what they share there is one still, and so there is where nothing changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q torch==2.13.0
cat > "$folder/see.py" <<'PYTHON'
from importlib.metadata import version

import torch
from torch import nn

print(f"torch {version('torch')}")
LAYERS, POSITIONS, SIDE = 32, 131_072, 128


class Layer(nn.Module):
    def __init__(self, name, shared):
        super().__init__()
        if name == "buffer":
            self.register_buffer("table", shared)
        else:
            self.table = shared


class Table(nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("table", make())


def make():
    return torch.empty(POSITIONS, SIDE, device="meta")


def held(model):
    named = [*model.parameters(), *model.buffers()]
    return sum({one.untyped_storage()._cdata: one.untyped_storage().nbytes() for one in named}.values()) / 2**20


for name, shared, expected in (
    ("buffer", make, (64, 64, 1024)), ("parameter", lambda: nn.Parameter(make()), (64, 64, 32)),
    ("module", Table, (64, 64, 32)),
):
    one = shared()
    model = nn.ModuleList([Layer(name, one) for _ in range(LAYERS)])
    found = held(model), held(model.to("meta")), held(model.half())
    print(f"a shared {name}: {found[0]:g} MiB, {found[1]:g} where nothing changes, {found[2]:g} in half precision")
    assert found == expected
one = torch.zeros(16, SIDE)
layers = nn.ModuleList([Layer("buffer", one) for _ in range(LAYERS)])
before, after = (len({one.untyped_storage()._cdata for one in layers.to(where).buffers()}) for where in ("cpu", "meta"))
print(f"moved to another device: {before} storage before, {after} after")
assert (before, after) == (1, LAYERS)
PYTHON
"$folder/venv/bin/python" "$folder/see.py" 2> "$folder/said" || { cat "$folder/said" >&2; exit 1; }
