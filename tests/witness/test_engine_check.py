"""``vramplan estimate --engine-check``: torch itself beside ours, phase by phase."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

pytestmark = [
    pytest.mark.witness,
    pytest.mark.usefixtures("cuda_build"),
    pytest.mark.skipif(find_spec("diffusers") is None, reason="diffusers is not installed"),
]

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("card", "words"),
    [
        ("rtx-4090", ("sd15-vae",)),
        ("t4", ("sd15-vae", "--dtype", "bf16", "--mode", "decode")),
        ("a100-80gb", ("denoising-ae", "--mode", "train", "--steps", "2")),
    ],
)
def test_torch_says_of_every_phase_what_we_say(card: str, words: tuple[str, ...]) -> None:
    command = [sys.executable, "-m", "vramplan", "estimate", *words, "--card", card]
    done = subprocess.run(
        [*command, "--engine-check", "--json"],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
    )
    assert done.returncode == 0, done.stderr  # 1 where torch contradicts it
    witness = json.loads(done.stdout)["result"]["engine"]
    assert witness["card"] == card
    assert witness["version"].startswith("torch 2.")
    assert witness["contradictions"] == []
    assert len(witness["buffers"]) >= 6
    assert witness["buffers"][-1]["name"] == "whole run: reserved"
