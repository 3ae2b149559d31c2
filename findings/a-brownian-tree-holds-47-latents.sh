#!/usr/bin/env bash
# torchsde, diffusers: a sampler with a Brownian tree holds 47 noises of the latents' size, for ten steps or a thousand.
#
# Guess: the noise between two steps is computed from a seed when it is asked for; a few of them are held.
# Seen:  the tree's cache has 45 places for points of the path, and its first queries fill them. What diffusers' own
#        BrownianTreeNoiseSampler makes holds 47 times the latents on their device, 52 for a moment, and a scheduler that
#        has one (DPMSolverSDE, Stable Audio's CosineDPMSolverMultistep) keeps it after the last step, while the VAE
#        decodes: 12 MiB for a picture of SDXL, 0.85 GiB for Wan's latents of 81 frames of 1280 x 720 in float32.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q torch==2.13.0 diffusers==0.42.1 torchsde==0.2.6
cat > "$folder/see.py" <<'PYTHON'
import weakref
from importlib.metadata import version

import torch
from diffusers import CosineDPMSolverMultistepScheduler, DPMSolverSDEScheduler
from diffusers.schedulers.scheduling_dpmsolver_sde import BrownianTreeNoiseSampler
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

print(*(f"{name} {version(name)}" for name in ("torch", "torchsde", "diffusers")))


class Counted(TorchDispatchMode):
    """Count the bytes of storages that appear while it is on, until they are freed."""

    def __init__(self):
        super().__init__()
        self.known, self.now, self.peak = {}, 0, 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.note(tree_leaves((args, kwargs)), new=False)
        out = function(*args, **(kwargs or {}))
        self.note(tree_leaves(out), new=True)
        return out

    def note(self, values, new):
        for one in values:
            if isinstance(one, torch.Tensor) and one.untyped_storage()._cdata not in self.known:
                storage = one.untyped_storage()
                self.known[storage._cdata] = storage.nbytes() if new else 0
                self.now += self.known[storage._cdata]
                self.peak = max(self.peak, self.now)
                weakref.finalize(storage, self.freed, storage._cdata)

    def freed(self, which):
        self.now -= self.known.pop(which, 0)


latents = torch.zeros(1, 4, 64, 64)
for steps in (10, 100, 1000):
    sigmas = torch.linspace(14, 0.03, steps + 1)
    with Counted() as counted:
        noise = BrownianTreeNoiseSampler(latents, sigma_min=0.03, sigma_max=14.0, seed=0)
        for start, end in zip(sigmas, sigmas[1:], strict=False):
            noise(start, end)
    kept, most = counted.now / latents.nbytes, counted.peak / latents.nbytes
    print(f"a tree of {steps:,} steps: {kept:.1f} times the latents kept, {most:.1f} at most")
    assert 46 < kept < 49 and most < 54
for kind in (DPMSolverSDEScheduler, CosineDPMSolverMultistepScheduler):
    scheduler = kind()
    scheduler.set_timesteps(25)
    drawn = torch.randn_like(latents) * scheduler.init_noise_sigma
    with Counted() as counted:
        for time in scheduler.timesteps:
            drawn = scheduler.step(torch.zeros_like(drawn), time, drawn).prev_sample
    kept = counted.now / latents.nbytes
    print(f"{kind.__name__} after its last step: {kept:.1f} times the latents")
    assert 46 < kept < 52
for name, numbers in (("SDXL, 1024 x 1024", 4 * 128 * 128), ("Wan, 81 frames of 1280 x 720", 16 * 21 * 90 * 160)):
    print(f"{name}: {47 * numbers * 4 / 2**20:,.0f} MiB")
PYTHON
"$folder/venv/bin/python" "$folder/see.py" 2> "$folder/said" || { cat "$folder/said" >&2; exit 1; }
