"""Published figures: what the file must say, and ours worked out at each figure's own settings."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from tools.snapshot import write_snapshot
from vramplan.ask.published import claims_about, compare_published, figure_of
from vramplan.catalog import load_pipeline_file, profiles_dir, validate
from vramplan.catalog.published import Claim, load_published_file
from vramplan.catalog.search import load_published
from vramplan.catalog.snapshot import read_published
from vramplan.engines.door import engine_of, open_entry
from vramplan.engines.torch.tape.format import write_tape
from vramplan.errors import CatalogError, TapeError, UsageError
from vramplan.model import Pipeline
from vramplan.units import GIB, MIB

FIGURE = """\
figures:
  - name: one
    claim: it takes two gigabytes
    pipeline: tiny
    settings: {image: 512x640, vae_tiling: off, guidance: 7.5}
    compute_capability: "8.6"
    metric: max_memory_allocated
    value: 2.5
    unit: GiB
    source: a test
"""
MULTIPLE = """\
figures:
  - {name: twice, claim: double, pipeline: tiny, compute_capability: "8.6", metric: weights,
     components: [vae], value: 2, unit: x, of: [vae.decoder], source: a test, remark: not so}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "published.yaml").write_text(FIGURE, encoding="utf-8")
    return tmp_path


def shipped(name: str, *folders: Path) -> Pipeline:
    entry = load_pipeline_file(profiles_dir() / "pipelines" / f"{name}.yaml")
    return open_entry(entry, (*folders, profiles_dir()))


def ours(pipeline: Pipeline, claim: Claim) -> int:
    return engine_of(pipeline).ours(pipeline, claim)


def claim(**changes: object) -> Claim:
    made = Claim(
        name="a-test",
        claim="a claim",
        pipeline="sd15-vae",
        settings={},
        compute_capability="8.6",
        metric="weights",
        value_bytes=1,
        source="a test",
        components=("vae",),
    )
    return replace(made, **changes)


# ------------------------------------------------------------------------------ the file
def test_a_figure_is_read(folder: Path) -> None:
    (figure,) = load_published(folder)
    assert figure.value_bytes == 5 * GIB // 2
    assert figure.settings == {"image": (512, 640), "vae_tiling": "off", "guidance": 7.5}
    assert (figure.remark, figure.after, figure.tolerance_percent) == (None, None, None)


def test_a_multiple_has_no_bytes_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "published.yaml").write_text(MULTIPLE, encoding="utf-8")
    (figure,) = load_published(tmp_path)
    assert (figure.value_bytes, figure.times, figure.of) == (None, 2.0, ("vae.decoder",))


def test_a_folder_without_figures_has_none(tmp_path: Path) -> None:
    assert load_published(tmp_path) == ()


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("metric: max_memory_allocated", "metric: memory", ":7:13: figures.one.metric: unknown"),
        ("value: 2.5", "value: -1", ":8:12: figures.one.value: must be at least 0"),
        ("value: 2.5", "value: two", ":8:12: figures.one.value: expected a number"),
        ("unit: GiB", "unit: G", ":9:11: figures.one.unit: unknown unit 'G'"),
        ("unit: GiB", "unit: x", ":9:11: figures.one.unit: a multiple needs `of`"),
        ("metric: max_memory_allocated", "metric: weights", ":7:13: figures.one.metric: weights"),
        ("guidance: 7.5", "guidence: 7.5", ":5:49: figures.one.settings.guidence: unknown setting"),
        ("512x640", "0x640", ":5:23: figures.one.settings.image: image 0x640: width and height"),
        ('"8.6"', "8.6", ":6:25: figures.one.compute_capability: expected text"),
        ('"8.6"', '"eight"', ":6:25: figures.one.compute_capability: 'eight' is not accepted"),
        ("    source: a test\n", "", ":2:5: figures.one: the key 'source' is missing"),
        ("claim:", "claims:", ":3:5: figures.one.claims: unknown key"),
        ("  - name: one\n", "  - name: one\n    name: two\n", ":3:5: the key 'name' appears twice"),
    ],
)
def test_what_is_wrong_is_said_with_its_place(folder: Path, old: str, new: str, said: str) -> None:
    path = folder / "published.yaml"
    assert FIGURE.count(old) == 1
    path.write_text(FIGURE.replace(old, new), encoding="utf-8")
    with pytest.raises(CatalogError) as caught:
        load_published(folder)
    assert str(caught.value).startswith(f"{path}{said}"), caught.value


def test_two_figures_of_one_name_are_refused(folder: Path) -> None:
    path = folder / "published.yaml"
    path.write_text(FIGURE + FIGURE.removeprefix("figures:\n"), encoding="utf-8")
    with pytest.raises(CatalogError, match=r":11:11: figures\.one\.name: .* stands above already"):
        load_published_file(path)


def test_validate_knows_the_file_alone_and_in_its_folder(folder: Path) -> None:
    assert validate(folder / "published.yaml") == []
    assert validate(folder) == []
    text = FIGURE.replace("unit: GiB", "unit: gib")
    (folder / "published.yaml").write_text(text, encoding="utf-8")
    assert len(validate(folder / "published.yaml")) == len(validate(folder)) == 1


def test_the_snapshot_gives_the_same_figures_until_the_file_changes(folder: Path) -> None:
    (folder / "pipelines").mkdir()
    (folder / "cards").mkdir()
    from_yaml = load_published(folder)
    assert read_published(folder) is None
    write_snapshot(folder)
    assert read_published(folder) is not None
    assert load_published(folder) == from_yaml
    (folder / "published.yaml").write_text(FIGURE.replace("2.5", "3.5"), encoding="utf-8")
    assert read_published(folder) is None
    assert load_published(folder)[0].value_bytes == 7 * GIB // 2


# -------------------------------------------------------------------------- the shipped file
SHIPPED = load_published(profiles_dir())


def test_the_shipped_figures_come_out_of_the_snapshot() -> None:
    assert read_published(profiles_dir()) is not None, "run: python -m tools.snapshot"
    assert load_published_file(profiles_dir() / "published.yaml") == SHIPPED


def test_every_shipped_figure_is_about_a_pipeline_that_has_its_settings() -> None:
    files = (profiles_dir() / "pipelines").glob("*.yaml")
    pipelines = {pipeline.name: pipeline for pipeline in map(load_pipeline_file, files)}
    for figure in SHIPPED:
        assert set(figure.settings) <= set(pipelines[figure.pipeline].defaults), figure.name


@pytest.mark.parametrize(
    "said",
    [
        "~300 MB VRAM at fp16",
        "1.5B parameter diffusion model",
        "(16,384), 48x",
        "double VRAM usage",
        "vision encoder (~300 MB)",
        "12 GB fits it comfortably",
        "8 GB may force offload",
    ],
)
def test_the_articles_claims_are_there(said: str) -> None:
    found = [figure for figure in SHIPPED if said in figure.claim]
    assert found
    assert all("article" in figure.source and figure.remark for figure in found)


# ---------------------------------------------------------------------------------- ours
def test_ours_stands_beside_the_articles_figure_for_the_vae() -> None:
    vae = shipped("sd15-vae")
    figures = {figure.claim: figure for figure in compare_published(vae)}
    vae_fp16 = figures["VAE encoder and decoder take ~300 MB VRAM at fp16"]
    assert vae_fp16.published_bytes == 300 * 10**6
    assert vae_fp16.ours_bytes == 2 * 83_653_863
    assert vae_fp16.remark == "holds at fp32 (319 MiB), not at fp16"
    assert vae_fp16.what == "weights \N{MIDDLE DOT} vae \N{MIDDLE DOT} dtype=fp16"
    doubling = figures["encoder and decoder double VRAM usage if both are loaded"]
    assert doubling.published_bytes == 2 * 2 * 49_490_179
    assert doubling.ours_bytes == 2 * 83_653_863


def test_latents_are_a_forty_eighth_of_the_image() -> None:
    vae = shipped("sd15-vae")
    for side in (512, 1024):
        image = claim(metric="latents", components=(), settings={"image": (side, side)})
        assert ours(vae, image) * 48 == side * side * 3 * 2


def test_a_figure_is_worked_out_at_its_own_settings_and_architecture() -> None:
    vae = shipped("sd15-vae")
    base = claim(metric="max_memory_allocated", components=(), settings={"mode": "decode"})
    larger = replace(base, settings={"mode": "decode", "image": (1024, 1024)})
    without_tensor_cores = replace(base, compute_capability="6.1")
    assert ours(vae, larger) > 2 * ours(vae, base)
    assert ours(vae, without_tensor_cores) < ours(vae, base)


def test_what_ran_before_in_the_process_counts() -> None:
    """cuBLAS's workspace holds a freed segment of the encoder's back, which decoding then uses."""
    vae = shipped("sd15-vae")
    alone = claim(
        metric="reserved_above_weights",
        components=(),
        settings={"mode": "decode"},
        compute_capability="8.9",
    )
    after = replace(alone, after={"mode": "encode"})
    assert ours(vae, after) < ours(vae, alone)
    allocated = [replace(one, metric="allocated_above_weights") for one in (alone, after)]
    assert ours(vae, allocated[0]) == ours(vae, allocated[1])


def test_a_ggml_engines_buffers_are_compared_one_by_one() -> None:
    figures = {f.claim: f for f in compare_published(shipped("llava-7b"))}
    cache = figures["a log of llava:7b: KV cache of 2048 tokens 256.00 MiB"]
    assert cache.ours_bytes == cache.published_bytes == 256 * MIB
    encoder = figures["llava:7b loads the vision encoder (~300 MB)"]
    assert encoder.ours_bytes == 582_436_864


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"components": ("unet",)}, "sd15-vae has no component 'unet'"),
        ({"settings": {"steps": 5}}, "sd15-vae has no setting 'steps'"),
        ({"metric": "kv_cache", "components": ()}, "diffusers has no kv_cache"),
    ],
)
def test_a_figure_that_does_not_fit_its_pipeline_is_named(
    wrong: dict[str, object], said: str
) -> None:
    vae = shipped("sd15-vae")
    with pytest.raises(UsageError, match=f"figure a-test: {said}"):
        ours(vae, claim(**wrong))


def test_a_figure_that_the_tape_does_not_cover_stands_alone(tmp_path: Path) -> None:
    """A user's own recording, of fp16 alone, is looked for before ours."""
    raw = json.loads((profiles_dir() / "tapes" / "sd15-vae.json").read_text(encoding="utf-8"))
    for name, variants in raw["routines"].items():
        raw["routines"][name] = [v for v in variants if "32" not in v["when"].get("vae_width", [])]
    (tmp_path / "tapes").mkdir()
    (tmp_path / "tapes" / "sd15-vae.json").write_text(write_tape(raw), encoding="utf-8")
    vae = shipped("sd15-vae", tmp_path)
    decode = claim(metric="max_memory_allocated", components=(), settings={"mode": "decode"})
    assert figure_of(vae, decode).ours_bytes is not None
    fp32 = replace(decode, settings={"mode": "decode", "dtype": "fp32"})
    assert figure_of(vae, fp32).ours_bytes is None
    with pytest.raises(TapeError):
        ours(vae, fp32)


def test_a_pipeline_of_the_users_is_not_compared_with_ours(tmp_path: Path) -> None:
    """Figures are looked for where the pipeline is from: another `sd15` is another pipeline."""
    (tmp_path / "pipelines").mkdir()
    text = (profiles_dir() / "pipelines" / "sd15.yaml").read_text(encoding="utf-8")
    (tmp_path / "pipelines" / "sd15.yaml").write_text(text, encoding="utf-8")
    theirs = load_pipeline_file(tmp_path / "pipelines" / "sd15.yaml")
    assert claims_about(theirs) == []
    assert compare_published(theirs) == ()
    assert len(claims_about(shipped("sd15"))) > 10
