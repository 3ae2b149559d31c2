"""Pipelines: what their files must say and what they become."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from vramplan.catalog.entries import Entries, find_pipeline
from vramplan.catalog.pipelines import (
    check_pipeline,
    load_pipeline_file,
    setting_text,
)
from vramplan.catalog.yaml_reader import Plain, parse_yaml
from vramplan.errors import CatalogError, UsageError
from vramplan.model import ComponentSpec, Constraint

TORCH = """\
schema: 1
name: tiny
aliases: [tiny-diffusion]
title: Tiny diffusion
summary: A pipeline for tests.
runtime: diffusers
source: https://example.org/tiny
tape: tiny
settings: {image: 512, batch: 1, mode: txt2img, vae_tiling: off, guidance: 7.5}
constraints: {image: {multiple_of: 8, min: 64, max: 4096}, mode: {choices: [txt2img, img2img]}}
scheduler: {class: diffusers.PNDMScheduler, config: {beta_start: 1e-4, skip: true}}
components:
  - {name: unet, class: diffusers.UNet2DConditionModel, config: {channels: [320, 640]}}
  - {name: text_encoder, class: transformers.CLIPTextModel}
"""
GGML = """\
name: tiny:7b
title: Tiny 7B
summary: A language model for tests.
runtime: ollama
source: https://example.org/tiny7b
settings: {context: 4096, gpu_layers: auto}
ggml: {layers: 33}
"""


def write(folder: Path, text: str, name: str = "tiny.yaml") -> Path:
    file = folder / name
    file.write_text(text, encoding="utf-8")
    return file


def errors_of(text: str) -> list[CatalogError]:
    return check_pipeline(parse_yaml(text, "f.yaml"))


def test_a_torch_pipeline_is_read_whole(tmp_path: Path) -> None:
    file = write(tmp_path, TORCH)
    found = load_pipeline_file(file)
    assert found.name == "tiny"
    assert found.aliases == ("tiny-diffusion",)
    assert found.defaults == {
        "image": (512, 512),
        "batch": 1,
        "mode": "txt2img",
        "vae_tiling": "off",
        "guidance": 7.5,
    }
    assert found.constraints == {
        "image": Constraint(multiple_of=8, minimum=64, maximum=4096),
        "mode": Constraint(choices=("txt2img", "img2img")),
    }
    assert found.text("tape") == "tiny"
    assert found.text("loading") is None
    assert found.section("ggml") is None
    assert found.path == str(file)
    assert found.scheduler() == ComponentSpec(
        name="scheduler",
        class_path="diffusers.PNDMScheduler",
        config={"beta_start": 1e-4, "skip": True},
    )
    assert [part.name for part in found.components()] == ["unet", "text_encoder"]
    assert found.components()[0].config == {"channels": [320, 640]}
    assert found.components()[1].config == {}


def test_a_ggml_pipeline_has_a_model_file_and_no_components(tmp_path: Path) -> None:
    found = load_pipeline_file(write(tmp_path, GGML))
    assert found.section("ggml") == {"layers": 33}
    assert (found.components(), found.text("tape"), found.scheduler()) == ((), None, None)


@pytest.mark.parametrize(
    ("old", "new", "message", "hint"),
    [
        (
            "runtime: diffusers",
            "runtime: ollama",
            "f.yaml:1:1: the key 'ggml' is missing",
            "ollama",
        ),
        ("tape: tiny", "ggml: {a: 1}", "ggml: a pipeline of diffusers has no ggml", ""),
        ("batch: 1", "batch: 0", "f.yaml:9:31: settings.batch: batch 0: must be at least 1", ""),
        ("batch: 1", "batsh: 1", "f.yaml:9:24: settings.batsh: unknown setting", "'batch'?"),
        ("image: 512,", "image: 500x500,", "image 500x500: width and height", "496x496, 504x504"),
        ("image: 512,", "image: wide,", "settings.image: image 'wide' is not a size", "WIDTH"),
        ("mode: txt2img,", "mode: train,", "tiny has no mode 'train'", "txt2img, img2img"),
        ("min: 64", "min: 5000", "constraints.image.min: min 5000 is above max 4096", ""),
        ("mode: {choices", "mood: {choices", "f.yaml:10:60: constraints.mood: no such", "'mode'?"),
        ("name: text_encoder", "name: unet", "components.unet.name: a component 'unet' stands", ""),
        ("diffusers.UNet", "os.UNet", "f.yaml:13:25: components.unet.class: 'os.UNet", "imported"),
        ("name: tiny\n", "name: Tiny\n", "f.yaml:2:7: name: 'Tiny' is not accepted", "lower-case"),
        ("title: Tiny diffusion\n", "", "the key 'title' is missing", "the name people use"),
    ],
)
def test_mistakes_are_named_where_they_stand(old: str, new: str, message: str, hint: str) -> None:
    assert old in TORCH
    errors = errors_of(TORCH.replace(old, new, 1))
    found = [error for error in errors if message in str(error)]
    assert found, [str(error) for error in errors]
    assert hint in (found[0].hint or "")
    assert "\n" not in str(found[0])


@pytest.mark.parametrize("key", ["components: [{name: a, class: torch.nn.Linear}]", "tape: x"])
def test_a_ggml_pipeline_refuses_what_torch_needs(key: str) -> None:
    errors = errors_of(GGML + key + "\n")
    assert [str(error) for error in errors] == [
        f"f.yaml:8:1: {key.partition(':')[0]}: a pipeline of ollama has no {key.partition(':')[0]}"
    ]


def test_a_file_that_is_no_mapping_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CatalogError, match=r"tiny\.yaml:1:1: expected a mapping, found a list"):
        load_pipeline_file(write(tmp_path, "- a\n"))


def test_all_mistakes_of_one_kind_are_listed() -> None:
    errors = errors_of(TORCH.replace("batch: 1", "batch: 0").replace("512", "500"))
    assert len(errors) == 2


@pytest.mark.parametrize(
    ("value", "text"),
    [(True, "on"), (False, "off"), (512, "512"), (7.5, "7.5"), (7.0, "7"), ("off", "off")],
)
def test_yaml_values_become_the_text_of_a_setting(value: Plain, text: str) -> None:
    assert setting_text(value) == text


def test_pipelines_are_found_by_name_alias_and_whatever_the_case(tmp_path: Path) -> None:
    tiny = load_pipeline_file(write(tmp_path, TORCH))
    other = load_pipeline_file(write(tmp_path, GGML.replace("tiny:7b", "tiny-diffusion")))
    assert find_pipeline("tiny", Entries([tiny])) is tiny
    assert find_pipeline("tiny-diffusion", Entries([tiny])) is tiny
    assert find_pipeline(" TINY ", Entries([tiny])) is tiny
    # a name wins over an alias
    assert find_pipeline("tiny-diffusion", Entries([tiny, other])) is other
    with pytest.raises(UsageError, match="unknown pipeline 'tinny'") as caught:
        find_pipeline("tinny", Entries([tiny]))
    assert caught.value.hint == "did you mean 'tiny'?"
    with pytest.raises(UsageError) as caught:
        find_pipeline("zzzzzz", Entries([tiny]))
    assert caught.value.hint == "vramplan catalog list shows them"


def test_finding_a_pipeline_imports_no_yaml() -> None:
    code = "import sys, vramplan.catalog.pipelines, vramplan.catalog.cards; print(*sys.modules)"
    modules = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.split()
    assert "vramplan.catalog.pipelines" in modules
    assert not {"yaml", "jsonschema", "numpy", "torch"} & set(modules)
