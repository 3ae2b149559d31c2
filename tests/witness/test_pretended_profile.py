"""``vramplan profile --pretend``: torch's own figures beside the estimate."""

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


def profile(*words: str) -> dict:
    done = subprocess.run(
        [sys.executable, "-m", "vramplan", "profile", *words, "-q", "--json"],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)["result"]


def test_decoder_takes_what_the_estimate_says() -> None:
    found = profile("sd15-vae", "--pretend", "rtx-4090", "--mode", "decode", "--dtype", "fp16")
    run = found["run"]
    assert run["witness"] == "pretended"
    assert run["failure"] is None
    assert run["gpu"]["name"] == "NVIDIA GeForce RTX 4090"
    allocated = found["peak"]["allocated"]
    assert abs(allocated["estimate_bytes"] - allocated["measured_bytes"]) < 1 << 20


def test_entry_that_no_recipe_knows_takes_what_its_tape_says() -> None:
    words = ("--batch", "3", "--dtype", "fp16", "--set", "prompt_tokens=100")
    found = profile("bge-small-en-v1.5", "--pretend", "rtx-3060-12gb", *words)
    assert found["run"]["failure"] is None
    assert {one["phase"] for one in found["run"]["stretches"]} >= {"load", "encode_prompt"}
    for name in ("allocated", "reserved"):
        pair = found["peak"][name]
        assert abs(pair["estimate_bytes"] - pair["measured_bytes"]) < 1 << 20


def test_run_that_does_not_fit_says_where_it_ended() -> None:
    words = ("--image", "2048x2048", "--mode", "decode", "--dtype", "fp16")
    failure = profile("sd15-vae", "--pretend", "8gb", *words)["run"]["failure"]
    assert failure["kind"] == "oom"
    assert failure["phase"] == "decode_image"
    assert failure["asked_bytes"] > 1 << 29
