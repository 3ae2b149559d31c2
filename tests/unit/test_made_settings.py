"""What pipelines make of frames and images that they round, and that budgets are of those."""

from __future__ import annotations

import pytest

from vramplan.ask.targets import make_jobs
from vramplan.catalog import load_catalog
from vramplan.engines.door import engine_of
from vramplan.engines.torch.made_settings import as_made, told
from vramplan.engines.torch.pipeline import of_torch
from vramplan.model import ComponentSpec, Estimate, SettingValue
from vramplan.quick_dataclass import replace

CATALOG = load_catalog()
A100 = CATALOG.card("a100-80gb").candidates[0]


def made(name: str, **settings: SettingValue) -> SettingValue:
    """Return what a pipeline makes of the one setting that it is asked for."""
    (job,) = make_jobs([name], CATALOG, settings)
    (key,) = settings
    return as_made(of_torch(job.pipeline), job.settings)[key]


def estimate(name: str, **settings: SettingValue) -> Estimate:
    (job,) = make_jobs([name], CATALOG, settings)
    return engine_of(job.pipeline).estimate(job, A100)


@pytest.mark.parametrize(
    ("name", "asked", "frames"),
    [
        # Wan's goes to the number behind the last whole four: 83 // 4 * 4 + 1
        ("wan2.1-t2v-1.3b", 80, 81),
        ("wan2.1-t2v-1.3b", 83, 81),
        ("wan2.1-t2v-1.3b", 84, 85),
        ("wan2.2-i2v-a14b", 3, 1),
        # the others leave out what makes no whole latent frame
        ("cogvideox-5b", 48, 45),
        ("cogvideox-5b", 52, 49),
        ("hunyuanvideo", 129, 129),
        ("hunyuanvideo-1.5", 120, 117),
        ("mochi-1", 24, 19),
        ("ltx-video-0.9.7", 160, 153),
        # the sound of LTX-2 is as long as it is asked for, and SVD has no latent frames
        ("ltx-2", 120, 120),
        ("svd-xt", 24, 24),
    ],
)
def test_frames_are_those_that_the_autoencoder_gives_back(
    name: str, asked: int, frames: int
) -> None:
    assert made(name, frames=asked) == frames


@pytest.mark.parametrize(
    ("asked", "image"),
    [
        ((512, 512), (1024, 1024)),
        ((1024, 1024), (1024, 1024)),
        ((960, 544), (1360, 768)),
        ((768, 1360), (768, 1360)),  # a side may be longer than its largest square's
        ((2048, 2048), (1024, 1024)),
        # it makes 1360x752 of that, and of 1360x752 another: no settings say it
        ((1008, 560), (1008, 560)),
    ],
)
def test_hidream_makes_an_image_of_a_megapixel(
    asked: tuple[int, int], image: tuple[int, int]
) -> None:
    assert made("hidream-i1", image=asked) == image


def test_a_budget_is_of_what_is_made_and_says_so() -> None:
    asked, as_rounded = (estimate("wan2.1-t2v-1.3b", frames=frames) for frames in (80, 81))
    assert asked.lines == as_rounded.lines
    assert set(asked.notes) - set(as_rounded.notes) == {
        "WanPipeline makes frames 81 where it is asked for 80"
    }


def test_an_autoencoder_with_a_step_of_its_own_is_asked() -> None:
    (job,) = make_jobs(["ltx-video-0.9.7"], CATALOG, {"frames": 42})
    pipeline = of_torch(job.pipeline)

    def with_config(**config: object) -> str:
        vae = ComponentSpec(name="vae", class_path="diffusers.AutoencoderKLLTXVideo", config=config)
        return " ".join(told(replace(pipeline, components=(vae,)), job.settings))

    assert "makes frames 41 " in with_config()
    assert "makes frames 33 " in with_config(patch_size_t=2)
    assert not with_config(spatio_temporal_scaling=[True] * 1000)  # not known: as it is asked for
    assert not with_config(patch_size_t="2")
