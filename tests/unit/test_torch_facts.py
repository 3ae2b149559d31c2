"""What settings mean to the code that runs: the tape or the recipe says which facts there are."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import vramplan.engines.torch as torch_engine
from vramplan.ask.targets import make_jobs, open_catalog
from vramplan.engines.torch.cublas_workspace import cublas_band
from vramplan.engines.torch.facts import facts_at, switched_off
from vramplan.engines.torch.pipeline import of_torch
from vramplan.units import MIB

UNET = ("cudnn", "efficient", "flash", "plain", "sliced")
VAE = ("efficient", "plain")


def facts(capability: str, known: dict[str, tuple[str, ...]], **settings: str) -> dict[str, str]:
    (job,) = make_jobs(["sd15"], open_catalog(), {})
    return facts_at(of_torch(job.pipeline), {**job.settings, **settings}, capability, known)


@pytest.mark.parametrize(
    ("attention", "capability", "unet", "vae"),
    [
        ("sdpa", "8.6", "flash", "efficient"),
        ("sdpa", "7.5", "efficient", "efficient"),
        ("math", "8.6", "plain", "plain"),
        ("sliced", "8.6", "sliced", "efficient"),  # an autoencoder has no slices of attention
    ],
)
def test_a_component_runs_a_kernel_that_it_was_recorded_with(
    attention, capability, unet, vae
) -> None:
    found = facts(capability, {"unet_kernel": UNET, "vae_kernel": VAE}, attention=attention)
    assert (found["unet_kernel"], found["vae_kernel"]) == (unet, vae)


def test_what_was_never_recorded_is_asked_for_all_the_same() -> None:
    """So that the tape says that it has no such recording, rather than to plan another."""
    known = {"unet_kernel": UNET[:-1]}
    assert facts("8.6", known, attention="sliced")["unet_kernel"] == "sliced"


def test_a_setting_that_a_pipeline_does_not_have_is_off() -> None:
    found = facts("8.6", {"upscaler": ("off", "on"), "style": ("plain",), "mode": ("img2img",)})
    assert (found["upscaler"], found["style"]) == ("off", "plain")
    assert found["mode"] == "txt2img", "one that it has is what it says"
    assert switched_off({"upscaler": 0, "unet": 0}, found) == {"upscaler"}
    assert not switched_off({"upscaler": 0}, {"upscaler": "on"})


DIFFUSERS = (
    "diffusers_offload.py", "changes.py", "open_saved.py", "same_model.py", "calls.py",
    "known_configs.py", "made_settings.py",
)  # fmt: skip


def test_no_name_of_a_familys_part_stands_in_generic_code() -> None:
    """They are in the recipes, and where it says how diffusers moves, saves and finds parts."""
    root = Path(torch_engine.__file__).parent
    generic = [
        path
        for path in root.rglob("*.py")
        if "recipes" not in path.parts and path.name not in DIFFUSERS
    ]
    assert len(generic) > 50
    names = re.compile(r"[\"'](unet|vae|safety_checker)(_kernel|\.\w+)?[\"']")
    found = {path.name: names.findall(path.read_text(encoding="utf-8")) for path in generic}
    assert {name: hits for name, hits in found.items() if hits} == {}


@pytest.mark.parametrize(
    ("capability", "low", "expected", "high"),
    [("6.1", 8.125, 8.125, 8.125), ("8.9", 8.125, 8.125, 8.125), ("9.0", 32, 32, 32),
     ("10.0", 8.125, 32, 32), ("12.0", 8.125, 32, 32), ("12.1", 8.125, 32, 32)],
)  # fmt: skip
def test_cublas_workspace_goes_with_the_architecture(capability, low, expected, high) -> None:
    """On Blackwell, the cards at home (12.x) among it, today's torch takes as much as on Hopper."""
    band, source = cublas_band(capability)
    found = (band.low_bytes, band.expected_bytes, band.high_bytes)
    assert found == tuple(int(size * MIB) for size in (low, expected, high))
    assert ("earlier builds took 8" in source) is (low < high)
