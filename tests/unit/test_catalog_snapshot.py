"""The snapshot says what the sources say, and is believed only while it does."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tools import snapshot
from tools.snapshot import main, snapshot_text, write_snapshot
from vramplan.catalog import search
from vramplan.catalog import snapshot as catalog_snapshot
from vramplan.catalog.cards import load_card_file
from vramplan.catalog.pipelines import Entry, build_pipeline, load_pipeline_file
from vramplan.catalog.search import catalog_files, load_catalog
from vramplan.catalog.shipped import profiles_dir
from vramplan.catalog.snapshot import read_snapshot
from vramplan.errors import UsageError

PIPELINE = """\
name: tiny
title: Tiny
summary: A pipeline for tests; größer.
runtime: torch
source: https://example.org
settings: {image: 512x640, batch: 1, guidance: 7.0, vae_tiling: off}
constraints: {batch: {max: 4}}
components: [{name: net, class: torch.nn.Linear, config: {eps: 1e-5, bias: true, none: ~}}]
"""
CARD = """\
cards:
  - {name: c, title: C, kind: consumer, class_gib: 7, total_bytes: 7GiB, reserved_bytes: 1MiB,
     compute_capability: "8.6", bandwidth_bytes_per_s: 1GB, source: test}
"""


@pytest.fixture
def profiles(tmp_path: Path) -> Path:
    for folder, text in (("pipelines", PIPELINE), ("cards", CARD)):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "one.yaml").write_text(text, encoding="utf-8")
    return tmp_path


def test_the_shipped_snapshot_is_fresh() -> None:
    written = (profiles_dir() / "snapshot.json").read_text(encoding="utf-8")
    assert written == snapshot_text(profiles_dir()), "run: python -m tools.snapshot"


def test_the_shipped_snapshot_is_the_shipped_sources() -> None:
    found = read_snapshot(profiles_dir())
    assert found is not None
    assert found.is_fresh()
    pipeline_files, card_files = catalog_files(profiles_dir())
    from_yaml = sorted(map(load_pipeline_file, pipeline_files), key=lambda one: one.name)
    assert list(load_catalog().pipelines.values()) == from_yaml
    assert found.cards() == tuple(card for file in card_files for card in load_card_file(file))


def test_a_snapshot_gives_back_what_the_yaml_says(profiles: Path) -> None:
    write_snapshot(profiles)
    found = read_snapshot(profiles)
    assert found is not None
    entry = found.pipeline("one.yaml")
    assert entry == load_pipeline_file(profiles / "pipelines" / "one.yaml")
    assert entry.components()[0].config == {"eps": 1e-5, "bias": True, "none": None}
    assert found.cards() == load_card_file(profiles / "cards" / "one.yaml")


def test_the_same_sources_give_the_same_bytes(profiles: Path) -> None:
    first = write_snapshot(profiles).read_bytes()
    os.utime(profiles / "cards" / "one.yaml", (0, 0))
    assert write_snapshot(profiles).read_bytes() == first
    assert first.endswith(b"\n")
    assert "größer" in first.decode("utf-8")


@pytest.mark.parametrize("kind", ["pipelines", "cards"])
def test_an_edit_makes_it_stale(profiles: Path, kind: str) -> None:
    write_snapshot(profiles)
    file = profiles / kind / "one.yaml"
    text = file.read_text(encoding="utf-8")
    file.write_text(text.replace("title: ", "title: X"), encoding="utf-8")
    assert read_snapshot(profiles) is None
    # the same length, another letter
    file.write_text(text.replace("source: ", "source:\t"), encoding="utf-8")
    found = read_snapshot(profiles)
    assert found is not None
    assert not found.is_fresh()
    assert (found.pipeline("one.yaml") is None) == (kind == "pipelines")
    assert (found.cards() is None) == (kind == "cards")
    file.write_text(text, encoding="utf-8")
    found = read_snapshot(profiles)
    assert found is not None
    assert found.is_fresh()


def test_a_new_or_a_missing_file_makes_it_stale(profiles: Path) -> None:
    write_snapshot(profiles)
    extra = profiles / "cards" / "two.yaml"
    extra.write_text(CARD, encoding="utf-8")
    assert read_snapshot(profiles) is None
    extra.unlink()
    (profiles / "pipelines" / "one.yaml").unlink()
    assert read_snapshot(profiles) is None


@pytest.mark.parametrize(
    "damage",
    [
        "",
        "{",
        "[]",
        '{"snapshot":1,\n"index":{"pipelines":{},"cards":{}}\n}',
        '{"snapshot":2,\n"index":{"pipelines":{},"cards":[]}\n}',
        '{"snapshot":2,\n"index":{"pipelines":{"one.yaml":7},"cards":{}}\n}',
        '{"snapshot":2,\n"index":{"cards":{}}\n}',
    ],
)
def test_a_damaged_or_foreign_snapshot_is_passed_over(profiles: Path, damage: str) -> None:
    assert read_snapshot(profiles) is None  # there is none yet
    (profiles / "snapshot.json").write_text(damage)
    assert read_snapshot(profiles) is None


def test_the_command_writes_and_checks(
    profiles: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(snapshot, "profiles_dir", lambda: profiles)
    assert main(["--check"]) == 1
    assert capsys.readouterr().out.startswith("stale")
    assert main([]) == 0
    assert capsys.readouterr().out == f"{profiles / 'snapshot.json'}\n"
    assert main(["--check"]) == 0
    assert capsys.readouterr().out == "fresh\n"
    (profiles / "cards" / "one.yaml").write_text("cards: []\n")
    assert main([]) == 2
    assert "one.yaml:1:8: cards: must list at least 1" in capsys.readouterr().err


def test_the_shipped_catalogue_is_read_without_a_yaml_parser() -> None:
    code = (
        "import sys; from vramplan.catalog.search import load_catalog; "
        "catalog = load_catalog(); catalog.card('12gb'); print(len(catalog.cards), *sys.modules)"
    )
    output = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.split()
    assert int(output[0]) >= 45
    assert not {"yaml", "hashlib", "tabulate", "jinja2", "numpy", "torch"} & set(output)


def test_the_snapshot_is_json_with_every_source(profiles: Path) -> None:
    content = json.loads(write_snapshot(profiles).read_bytes())
    assert list(content) == ["snapshot", "index", "pipelines/one.yaml", "cards/one.yaml"]
    assert list(content["index"]["pipelines"]) == ["one.yaml"]
    assert content["index"]["pipelines"]["one.yaml"]["bytes"] == len(PIPELINE.encode("utf-8"))


@pytest.fixture
def shipped(profiles: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A catalogue of three that ships, of which two are called by other names."""
    for name in ("two", "three"):
        text = PIPELINE.replace("name: tiny", f"name: {name}", 1)
        text += f"aliases: [{name}-b]\nrepositories: [Org/{name}]\n"
        (profiles / "pipelines" / f"{name}.yaml").write_text(text, encoding="utf-8")
    monkeypatch.setattr(search, "profiles_dir", lambda: profiles)
    write_snapshot(profiles)
    return profiles


def test_nothing_is_made_of_pipelines_that_nobody_asks_for(
    shipped: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[str] = []

    def build(data: dict[str, object], path: str) -> Entry:
        made.append(Path(path).name)
        return build_pipeline(data, path)

    monkeypatch.setattr(catalog_snapshot, "build_pipeline", build)
    catalog = load_catalog()
    assert list(catalog.pipelines) == ["three", "tiny", "two"]
    assert len(catalog.pipelines) == 3
    assert not made
    assert catalog.pipeline("two-b").name == catalog.pipeline("TWO").name == "two"
    assert catalog.repository("org/TWO") is catalog.pipelines["two"]
    assert made == ["two.yaml"]
    with pytest.raises(UsageError) as caught:
        catalog.pipeline("thre")
    assert caught.value.hint == "did you mean 'three'?"
    assert made == ["two.yaml"]
    assert [one.path for one in catalog.pipelines.values()] == [
        str(shipped / "pipelines" / f"{name}.yaml") for name in ("three", "one", "two")
    ]


def test_an_edit_of_as_many_bytes_shows_when_the_pipeline_is_asked_for(shipped: Path) -> None:
    file = shipped / "pipelines" / "two.yaml"
    file.write_text(file.read_text(encoding="utf-8").replace("title: Tiny", "title: TINY"))
    assert load_catalog().pipeline("two-b").title == "TINY"
    file.write_text(file.read_text(encoding="utf-8").replace("name: two", "name: owt"))
    catalog = load_catalog()
    with pytest.raises(UsageError, match="unknown pipeline 'two'"):
        catalog.pipeline("two")
    assert list(catalog.pipelines) == ["owt", "three", "tiny"]
    assert catalog.pipeline("two-b").name == "owt"


@pytest.mark.usefixtures("shipped")
def test_a_users_pipeline_goes_before_one_that_ships(tmp_path: Path) -> None:
    own = tmp_path / "own"
    own.mkdir()
    (own / "two.yaml").write_text(PIPELINE.replace("name: tiny", "name: two", 1), encoding="utf-8")
    catalog = load_catalog([own])
    assert catalog.pipeline("two").path == str(own / "two.yaml")
    assert catalog.repository("org/two") is catalog.pipelines["two"]
    assert list(catalog.pipelines) == ["three", "tiny", "two"]
    with pytest.raises(UsageError, match="unknown pipeline 'two-b'"):
        catalog.pipeline("two-b")
