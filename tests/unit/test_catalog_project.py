"""`vramplan.yaml`: what a project says it deploys."""

from __future__ import annotations

from pathlib import Path

import pytest

from vramplan.catalog.project import Project, load_project
from vramplan.errors import CatalogError

FULL = """\
schema: 1
targets: [sd15, llava:7b, ./models/x.gguf]
cards: [8gb, rtx-4070]
settings: {batch: 2, image: 768x512, vae_tiling: on}
together: on
catalog: mine
pipelines:
  - name: own
    title: Own
    summary: A pipeline for tests.
    runtime: torch
    source: here
    settings: {batch: 1}
    components: [{name: net, class: torch.nn.Linear}]
"""


def write(folder: Path, text: str) -> Path:
    file = folder / "vramplan.yaml"
    file.write_text(text)
    return file


def test_a_project_needs_only_targets(tmp_path: Path) -> None:
    file = write(tmp_path, "targets: [sd15]\n")
    assert load_project(file) == Project(path=file, targets=("sd15",))


def test_a_project_is_read_whole(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    found = load_project(write(tmp_path, FULL))
    assert found.targets == ("sd15", "llava:7b", "./models/x.gguf")
    assert found.cards == ("8gb", "rtx-4070")
    assert found.settings == {"batch": 2, "image": (768, 512), "vae_tiling": "on"}
    assert found.is_together
    assert found.catalog == tmp_path / "mine"
    assert [pipeline.name for pipeline in found.pipelines] == ["own"]
    assert found.pipelines[0].path == str(tmp_path / "vramplan.yaml")


@pytest.mark.parametrize(
    ("word", "is_together"), [("off", False), ("false", False), ("true", True)]
)
def test_together_is_a_switch(tmp_path: Path, word: str, is_together: bool) -> None:
    file = write(tmp_path, f"targets: [a, b]\ntogether: {word}\n")
    assert load_project(file).is_together is is_together


@pytest.mark.parametrize(
    ("old", "new", "message", "hint"),
    [
        (
            "targets: [sd15, llava:7b, ./models/x.gguf]\n",
            "",
            "the key 'targets' is missing",
            "what",
        ),
        ("[sd15, llava:7b, ./models/x.gguf]", "sd15", ":2:10: targets: expected a list", ""),
        ("llava:7b", "sd15", ":2:17: targets[1]: 'sd15' stands twice", ""),
        ("batch: 2", "batch: 0", ":4:19: settings.batch: batch 0: must be at least 1", ""),
        ("batch: 2", "bacth: 2", "settings.bacth: unknown setting 'bacth'", "'batch'?"),
        ("together: on", "together: maybe", "together: unknown together 'maybe'", "use on, off"),
        ("catalog: mine", "catalog: yours", ":6:10: catalog: yours is not a folder", ""),
        ("runtime: torch", "runtime: jax", ":11:14: pipelines.own.runtime: unknown", "use "),
        ("    title: Own\n", "", ":8:5: pipelines.own: the key 'title' is missing", "the name"),
        ("{batch: 1}", "{batch: 0}", "pipelines.own.settings.batch: batch 0: must be", ""),
        ("cards:", "card:", ":3:1: card: unknown key", "did you mean 'cards'?"),
    ],
)
def test_mistakes_are_named(tmp_path: Path, old: str, new: str, message: str, hint: str) -> None:
    (tmp_path / "mine").mkdir()
    assert old in FULL
    with pytest.raises(CatalogError) as caught:
        load_project(write(tmp_path, FULL.replace(old, new, 1)))
    assert message in str(caught.value)
    assert hint in (caught.value.hint or "")


def test_two_pipelines_of_one_name_are_refused(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    twice = FULL + FULL.partition("pipelines:\n")[2]
    with pytest.raises(CatalogError, match=r"pipelines\.own\.name: a pipeline 'own' stands above"):
        load_project(write(tmp_path, twice))
