#!/usr/bin/env bash
# torch: a linear layer under inference_mode takes twice as much where its weight could have been trained.
#
# Guess: where no gradient is recorded, requires_grad makes no difference.
# Seen:  on inputs that do not lie in order, as the image of a VAE's attention, torch copies the input first if the
#        weight has requires_grad, as from_pretrained leaves it, and not if requires_grad_(False) was called: under
#        no_grad and under inference_mode, two outputs' bytes instead of one. Whoever counts by a TorchDispatchMode
#        sees other numbers: three and two under no_grad, one for both under inference_mode.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q torch==2.13.0
cat > "$folder/see.py" <<'PYTHON'
from contextlib import nullcontext
from importlib.metadata import version

import torch
from torch.profiler import ProfilerActivity, profile
from torch.utils._python_dispatch import TorchDispatchMode

print("torch", version("torch"))


class Looks(TorchDispatchMode):
    """Do what would be done without it."""

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        return function(*args, **(kwargs or {}))


def allocated(layer, x, around, look):
    """Return the bytes that torch's own allocator hands out in one call, in inputs."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen, around(), look():
        layer(x)
    events = seen.profiler.kineto_results.events()
    return sum(max(one.nbytes(), 0) for one in events if one.name() == "[memory]") / x.nbytes


image = torch.randn(2, 512, 32, 32)
x = image.view(2, 512, 1024).transpose(1, 2)  # as attention over an image's pixels gets them
layer = torch.nn.Linear(512, 512)
expected = {
    ("no_grad", True): (2, 3), ("no_grad", False): (1, 2),
    ("inference_mode", True): (2, 1), ("inference_mode", False): (1, 1),
}
for around in (torch.no_grad, torch.inference_mode):
    for trained in (True, False):
        layer.requires_grad_(trained)
        found = tuple(round(allocated(layer, x, around, look), 2) for look in (nullcontext, Looks))
        print(f"{around.__name__}, requires_grad {trained}: {found[0]} inputs' bytes, under a dispatch mode {found[1]}")
        assert found == expected[around.__name__, trained]
PYTHON
"$folder/venv/bin/python" "$folder/see.py" 2> "$folder/said" || { cat "$folder/said" >&2; exit 1; }
