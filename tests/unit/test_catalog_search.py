"""Where the catalogue comes from, and who wins."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from vramplan.catalog import search
from vramplan.catalog.search import load_catalog, user_folders, validate
from vramplan.catalog.shipped import profiles_dir
from vramplan.errors import CatalogError, UsageError

PIPELINE = """\
name: {name}
title: {title}
summary: A pipeline for tests.
runtime: torch
source: https://example.org
settings: {{batch: 1}}
components: [{{name: net, class: torch.nn.Linear}}]
"""
CARD = """\
cards:
  - {{name: {name}, title: {title}, kind: consumer, class_gib: 7, total_bytes: 7GiB,
     reserved_bytes: 1MiB, compute_capability: "8.6", bandwidth_bytes_per_s: 1GB, source: test}}
"""


def add_pipeline(folder: Path, name: str, title: str = "Test", file: str | None = None) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / (file or f"{name}.yaml")
    path.write_text(PIPELINE.format(name=name, title=title))
    return path


def add_card(folder: Path, name: str, title: str = "Test", file: str | None = None) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / (file or f"{name}.yaml")
    path.write_text(CARD.format(name=name, title=title))
    return path


@pytest.fixture
def shipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Profiles of our own, so that tests do not depend on what ships."""
    folder = tmp_path / "shipped"
    add_pipeline(folder / "pipelines", "ours", "Ours")
    add_card(folder / "cards", "card-1", "Ours")
    monkeypatch.setattr(search, "profiles_dir", lambda: folder)
    return folder


def test_what_ships_is_there_without_any_folder(shipped: Path) -> None:
    catalog = load_catalog()
    assert list(catalog.pipelines) == ["ours"]
    assert list(catalog.cards) == ["card-1"]
    assert catalog.folders == (shipped,)
    assert catalog.pipeline("OURS").title == "Ours"
    assert catalog.card("card-1").candidates[0].title == "Ours"
    assert catalog.card("7gb").label == "7gb"


def test_the_first_folder_wins_by_name(tmp_path: Path, shipped: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    add_pipeline(first / "pipelines", "ours", "First")
    add_pipeline(second / "pipelines", "ours", "Second")
    add_pipeline(second / "pipelines", "theirs", "Second")
    add_card(second / "cards", "card-1", "Second")
    catalog = load_catalog([first, second])
    assert catalog.pipeline("ours").title == "First"
    assert catalog.pipeline("theirs").title == "Second"
    assert catalog.card("card-1").title == "Second"
    assert catalog.folders == (first, second, shipped)


@pytest.mark.usefixtures("shipped")
def test_inline_pipelines_win_over_every_folder(tmp_path: Path) -> None:
    from vramplan.catalog.pipelines import load_pipeline_file

    inline = load_pipeline_file(add_pipeline(tmp_path, "ours", "Inline"))
    assert load_catalog(inline=[inline]).pipeline("ours") is inline


@pytest.mark.usefixtures("shipped")
def test_a_folder_of_bare_files_is_a_folder_of_pipelines(tmp_path: Path) -> None:
    folder = tmp_path / "bare"
    add_pipeline(folder, "a", file="a.yml")
    (folder / "vramplan.yaml").write_text("targets: [a]\n")
    (folder / "notes.txt").write_text("not yaml: [")
    assert set(load_catalog([folder]).pipelines) == {"a", "ours"}
    # beside folders of their own, bare files are something else's
    add_card(folder / "cards", "card-2")
    assert set(load_catalog([folder]).pipelines) == {"ours"}


@pytest.mark.usefixtures("shipped")
def test_a_name_given_twice_in_one_folder_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    add_pipeline(folder / "pipelines", "a", file="1.yaml")
    add_pipeline(folder / "pipelines", "a", file="2.yaml")
    with pytest.raises(CatalogError, match=r"2\.yaml:1:1: the pipeline 'a' is in 1\.yaml already"):
        load_catalog([folder])
    assert "is in 1.yaml already" in str(validate(folder)[0])
    (folder / "pipelines" / "2.yaml").unlink()
    add_card(folder / "cards", "c", file="1.yaml")
    add_card(folder / "cards", "c", file="2.yaml")
    with pytest.raises(CatalogError, match=r"2\.yaml:1:1: the card 'c' is in 1\.yaml already"):
        load_catalog([folder])


@pytest.mark.usefixtures("shipped")
def test_a_wrong_file_of_a_user_is_named(tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    add_pipeline(folder / "pipelines", "a").write_text("name: a\nname: b\n")
    with pytest.raises(CatalogError, match=r"a\.yaml:2:1: the key 'name' appears twice"):
        load_catalog([folder])


def test_folders_come_from_the_option_and_then_the_variable(tmp_path: Path) -> None:
    a, b, c = tmp_path / "a", tmp_path / "b", tmp_path / "c"
    for folder in (a, b, c):
        folder.mkdir()
    environment = {"VRAMPLAN_CATALOG": f"{b}{os.pathsep}{os.pathsep}{c}"}
    assert user_folders([str(a)], environment) == [a, b, c]
    assert user_folders([], {}) == []
    with pytest.raises(UsageError, match=r"--catalog: .*none is not a folder"):
        user_folders([tmp_path / "none"], {})
    with pytest.raises(UsageError, match=r"VRAMPLAN_CATALOG: .*none is not a folder"):
        user_folders([], {"VRAMPLAN_CATALOG": str(tmp_path / "none")})


def test_validate_lists_what_is_wrong_in_every_file(tmp_path: Path) -> None:
    good = add_pipeline(tmp_path / "pipelines", "good")
    bad = add_pipeline(tmp_path / "pipelines", "bad")
    bad.write_text(bad.read_text().replace("batch: 1", "batch: 0").replace("title", "titel"))
    cards = add_card(tmp_path / "cards", "c")
    cards.write_text(cards.read_text().replace("7GiB", "7G"))
    torn = tmp_path / "pipelines" / "torn.yaml"
    torn.write_text("a: [")
    project = tmp_path / "vramplan.yaml"
    project.write_text("targets: []\n")
    assert validate(good) == []
    messages = [str(error) for error in validate(tmp_path)]
    assert [message.removeprefix(str(tmp_path)).split(":")[0] for message in messages] == [
        "/pipelines/bad.yaml",
        "/pipelines/bad.yaml",
        "/pipelines/torn.yaml",
        "/cards/c.yaml",
        "/vramplan.yaml",
    ]
    assert "targets: must list at least 1" in str(validate(project)[0])
    assert "cannot be read" in str(validate(tmp_path / "none.yaml")[0])


def test_everything_that_ships_is_valid() -> None:
    assert [str(error) for error in validate(profiles_dir())] == []


def test_no_name_or_alias_ships_twice() -> None:
    catalog = load_catalog()
    for entries in (catalog.pipelines.values(), catalog.cards.values()):
        names = [name for entry in entries for name in (entry.name, *entry.aliases)]
        assert len(names) == len(set(names))
