"""`vramplan.yaml`: what a project says it deploys."""

from __future__ import annotations

from pathlib import Path

import pytest

from vramplan.catalog.project import Project, load_project
from vramplan.catalog.target_text import Target
from vramplan.errors import CatalogError
from vramplan.model import VerdictKind

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
    assert load_project(file) == Project(path=file, targets=(Target(text="sd15"),))


def test_a_project_is_read_whole(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    found = load_project(write(tmp_path, FULL))
    assert [one.text for one in found.targets] == ["sd15", "llava:7b", "./models/x.gguf"]
    assert found.cards == ("8gb", "rtx-4070")
    assert found.settings == {"batch": 2, "image": (768, 512), "vae_tiling": "on"}
    assert found.groups == ((0, 1, 2),)
    assert found.catalog == tmp_path / "mine"
    assert [pipeline.name for pipeline in found.pipelines] == ["own"]
    assert found.pipelines[0].path == str(tmp_path / "vramplan.yaml")


@pytest.mark.parametrize(
    ("word", "is_together"), [("off", False), ("false", False), ("true", True)]
)
def test_together_is_a_switch(tmp_path: Path, word: str, is_together: bool) -> None:
    file = write(tmp_path, f"targets: [a, b]\ntogether: {word}\n")
    assert bool(load_project(file).groups) is is_together


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
        ("llava:7b", "3", ":2:17: targets[1]: expected text or a mapping, found 3", ""),
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


DEPLOYED = """\
targets:
  - sd15[offload=model]
  - target: sd15[batch=2]
    name: thumbnails
    settings: {batch: 4, image: 512}
  - llava:7b
together: [[thumbnails, llava:7b], ["sd15[offload=model]", llava:7b]]
fail_on: tight
margin: 512MiB
other: 1073741824
"""


def test_what_each_target_is_deployed_with(tmp_path: Path) -> None:
    """Of a mapping's settings those at length win over those in its brackets."""
    found = load_project(write(tmp_path, DEPLOYED))
    assert found.targets == (
        Target(text="sd15", settings={"offload": "model"}),
        Target(text="sd15", name="thumbnails", settings={"batch": 4, "image": (512, 512)}),
        Target(text="llava:7b"),
    )
    assert found.groups == ((1, 2), (0, 2))
    assert found.fail_on is VerdictKind.TIGHT
    assert (found.margin_bytes, found.other_bytes) == (512 << 20, 1 << 30)


@pytest.mark.parametrize(
    ("old", "new", "message", "hint"),
    [
        ("sd15[offload", "sd15[ofload", ":2:5: targets[0]: sd15: unknown setting", "'offload'?"),
        ("model]\n", "model\n", ":2:5: targets[0]: 'sd15[offload=model': the bracket", "model]'"),
        ("{batch: 4", "{bacth: 4", ":5:23: targets.thumbnails.settings.bacth: unk", "'batch'?"),
        ("name: thumb", "nam: thumb", ":4:5: targets[1].nam: unknown key", "did you mean 'name'?"),
        (
            "target: sd15",
            "targets: sd15",
            ":3:5: targets.thumbnails.targets: unknown key",
            "'target'?",
        ),
        (
            "[[thumbnails",
            "[[thumbnail",
            ":7:13: together[0][0]: no target is called",
            "'thumbnails",
        ),
        ("[[thumbnails, llava:7b]", "[[llava:7b]", "together[0]: must list at least 2", ""),
        ("[[thumbnails, llava:7b], [", "[llava:7b, [", ":7:12: together[0]: expected a list", ""),
        ("fail_on: tight", "fail_on: fits", ":8:10: fail_on: unknown fail_on 'fits'", "use tight"),
        ("margin: 512MiB", "margin: 8G", ":9:9: margin: ", ""),
        ("margin: 512MiB", "margins: 1GiB", ":9:1: margins: unknown key", "mean 'margin'?"),
        ("other: 1073741824", "other: -1", ":10:8: other: must be at least 0", ""),
        (
            "  - llava:7b",
            "  - {target: llava:7b, name: thumbnails}",
            ":6:30: targets.thumbnails.name: a target called 'thumbnails' stands above",
            "",
        ),
    ],
)
def test_mistakes_in_a_deployment_are_named(
    tmp_path: Path, old: str, new: str, message: str, hint: str
) -> None:
    assert old in DEPLOYED
    with pytest.raises(CatalogError) as caught:
        load_project(write(tmp_path, DEPLOYED.replace(old, new, 1)))
    assert message in str(caught.value)
    assert hint in (caught.value.hint or "")


def test_one_of_two_alike_cannot_be_told_apart(tmp_path: Path) -> None:
    twice = (
        "targets: [sd15, {target: sd15, settings: {batch: 2}}, sdxl]\ntogether: [[sd15, sdxl]]\n"
    )
    with pytest.raises(CatalogError, match="several targets are called 'sd15'") as caught:
        load_project(write(tmp_path, twice))
    assert "give them a name" in (caught.value.hint or "")


def test_a_group_need_not_say_the_settings_of_what_is_in_it(tmp_path: Path) -> None:
    """So that what a plan says may be written down without a change of the group."""
    text = "targets: ['sd15[batch=2]', {target: 'sdxl[batch=2]'}, {target: llava:7b, name: chat}]\n"
    found = load_project(write(tmp_path, text + "together: [[sd15, sdxl], [chat, sd15]]\n"))
    assert found.groups == ((0, 1), (2, 0))
    twice = text.replace("sdxl[batch=2]", "sd15[batch=3]") + "together: [[sd15, chat]]\n"
    with pytest.raises(CatalogError, match="several targets are called 'sd15'"):
        load_project(write(tmp_path, twice))
    same = text + "together: [[sd15, 'sd15[batch=2]']]\n"
    with pytest.raises(CatalogError, match=r":2:19: .*'sd15\[batch=2\]' is in this group already"):
        load_project(write(tmp_path, same))
