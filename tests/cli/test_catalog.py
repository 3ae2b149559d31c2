"""``vramplan catalog``: list, show, validate, add."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from vramplan.catalog import load_catalog

CARDS = """\
cards:
- {name: my-card, title: Mine, kind: consumer, class_gib: 5, total_bytes: 5GiB, reserved_bytes: 0,
   compute_capability: "8.6", bandwidth_bytes_per_s: 1GB, source: made up}
"""


@pytest.fixture
def own(tmp_path) -> Path:
    """An empty catalogue folder of one's own."""
    folder = tmp_path / "own"
    folder.mkdir()
    return folder


# -- list ---------------------------------------------------------------------------------------


def test_list_names_every_pipeline(run) -> None:
    known = list(load_catalog().pipelines)
    result = run("catalog", "list", "--json")
    assert (result.code, result.err) == (0, "")
    assert result.json["command"] == "catalog list"
    assert [one["name"] for one in result.json["result"]["pipelines"]] == known
    table = run("catalog", "list").out
    marked = run("catalog", "list", "--format", "markdown").out
    for name in known:
        assert f"\n{name} " in table
        assert f"\n| `{name}` " in marked


def test_list_has_ones_own_too(run, tiny: Path, monkeypatch) -> None:
    def names(*words: str) -> list[str]:
        pipelines = run("catalog", "list", "--json", *words).json["result"]["pipelines"]
        return [one["name"] for one in pipelines]

    assert "tiny:1b" not in names()
    assert "tiny:1b" in names("--catalog", str(tiny.parent))
    monkeypatch.setenv("VRAMPLAN_CATALOG", str(tiny.parent))
    assert "tiny:1b" in names()


# -- show ---------------------------------------------------------------------------------------


def test_show_says_which_settings_there_are_and_what_they_accept(run) -> None:
    result = run("catalog", "show", "llava")
    assert (result.code, result.err) == (0, "")
    assert result.out.startswith("llava:7b · LLaVA 1.6 on Mistral 7B")
    for line in ("context  ", "kv_type  ", "gpu_layers  "):
        assert f"\n{line}" in result.out
    assert "1 to 32768" in result.out
    assert "f16, q8_0, q4_0" in result.out
    assert "\nmodel file\n" in result.out
    assert "projector.image_size    336" in result.out


def test_show_names_the_components(run) -> None:
    out = run("catalog", "show", "sd15").out
    assert "\ncomponents\n" in out
    assert "diffusers.UNet2DConditionModel" in out
    assert "64 to 4096, multiples of 8" in out


def test_show_as_json_and_markdown(run) -> None:
    found = run("catalog", "show", "sd15", "--json").json
    assert found["command"] == "catalog show"
    assert found["result"]["name"] == "sd15"
    assert found["result"]["settings"]["image"] == "512x512"
    assert found["result"]["constraints"]["image"]["multiple_of"] == 8
    classes = {part["name"]: part["class"] for part in found["result"]["components"]}
    assert classes["vae"] == "diffusers.AutoencoderKL"
    marked = run("catalog", "show", "sd15", "--format", "markdown").out
    assert marked.startswith("## sd15 · Stable Diffusion 1.5")
    assert "### settings" in marked


def test_show_takes_a_file(run, tiny: Path) -> None:
    assert run("catalog", "show", tiny).out.startswith("tiny:1b · Tiny 1B")


def test_show_of_an_unknown_name_suggests(run) -> None:
    result = run("catalog", "show", "sd1")
    assert (result.code, result.out) == (2, "")
    assert (result.error, result.hint) == ("unknown pipeline 'sd1'", "did you mean 'sd15'?")


# -- validate -----------------------------------------------------------------------------------


def test_what_ships_is_valid_and_validate_silent(run) -> None:
    result = run("catalog", "validate")
    assert (result.code, result.out, result.err) == (0, "", "")


def test_every_mistake_has_its_place(run, tiny: Path) -> None:
    text = tiny.read_text(encoding="utf-8")
    text = text.replace("kv_type: f16", "kv_type: f17").replace("max: 4096", "mux: 4096")
    tiny.write_text(text, encoding="utf-8")
    result = run("catalog", "validate", "tiny.yaml")
    assert (result.code, result.out) == (2, "")
    lines = result.err.splitlines()
    assert lines[0].startswith("error: tiny.yaml:8:")
    assert "constraints.context.mux: unknown key" in lines[0]
    assert all(line.startswith(("error: tiny.yaml:", "hint: ")) for line in lines)
    found = run("catalog", "validate", "tiny.yaml", "--json")
    assert found.code == 2
    assert found.err == ""
    assert found.json["result"]["errors"][0]["message"] == lines[0].removeprefix("error: ")


def test_a_valid_file_is_an_empty_list(run, tiny: Path) -> None:
    result = run("catalog", "validate", tiny, "--json")
    assert result.code == 0
    assert result.json["result"] == {"errors": []}
    assert run("catalog", "validate", tiny, "--format", "markdown").out == ""


def test_cards_and_projects_are_validated_as_what_they_are(run, tmp_path) -> None:
    (tmp_path / "cards.yaml").write_text(CARDS, encoding="utf-8")
    (tmp_path / "vramplan.yaml").write_text("targets: [sd15]\n", encoding="utf-8")
    assert run("catalog", "validate", "cards.yaml", "vramplan.yaml").code == 0
    (tmp_path / "cards.yaml").write_text(CARDS.replace("5GiB", "5G"), encoding="utf-8")
    result = run("catalog", "validate", "cards.yaml")
    assert result.code == 2
    assert "cards.my-card.total_bytes: unclear unit in size '5G'" in result.error


def test_the_whole_catalogue_has_ones_own_in_it(run, tiny: Path) -> None:
    tiny.write_text("name: x\n", encoding="utf-8")
    result = run("catalog", "validate", "--catalog", tiny.parent)
    assert result.code == 2
    assert str(tiny) in result.err


def test_a_file_that_is_not_there_is_one_line(run) -> None:
    result = run("catalog", "validate", "nowhere.yaml")
    assert result.code == 2
    assert result.error == "nowhere.yaml: cannot be read: No such file or directory"


# -- add ----------------------------------------------------------------------------------------


def test_add_copies_a_pipeline_where_check_finds_it(run, tiny: Path, own: Path) -> None:
    result = run("catalog", "add", tiny, "--catalog", own)
    target = own / "pipelines" / "tiny.yaml"
    assert (result.code, result.out, result.err) == (0, f"{target}\n", "")
    assert target.read_text(encoding="utf-8") == tiny.read_text(encoding="utf-8")
    assert run("check", "tiny:1b", "--card", "8gb", "--catalog", own).code == 0


def test_add_copies_cards(run, tmp_path, own: Path) -> None:
    (tmp_path / "c.yml").write_text(CARDS, encoding="utf-8")
    assert run("catalog", "add", "c.yml", "--catalog", own).out == f"{own / 'cards' / 'c.yaml'}\n"
    assert run("cards", "my-card", "--catalog", own).code == 0


def test_add_makes_the_folder_that_is_named(run, tiny: Path, tmp_path) -> None:
    assert run("catalog", "add", tiny, "--catalog", tmp_path / "new").code == 0
    assert (tmp_path / "new" / "pipelines" / "tiny.yaml").is_file()


def test_add_takes_the_first_folder_of_the_variable(run, tiny, own, tmp_path, monkeypatch) -> None:
    (tmp_path / "second").mkdir()
    folders = os.pathsep.join([str(own), str(tmp_path / "second")])
    monkeypatch.setenv("VRAMPLAN_CATALOG", folders)
    assert run("catalog", "add", tiny).code == 0
    assert (own / "pipelines" / "tiny.yaml").is_file()


def test_add_without_a_folder_says_how_to_name_one(run, tiny: Path) -> None:
    result = run("catalog", "add", tiny)
    assert (result.code, result.out) == (2, "")
    assert result.error == "no catalogue folder of yours to add to"
    assert "VRAMPLAN_CATALOG" in result.hint


def test_add_does_not_replace(run, tiny: Path, own: Path) -> None:
    assert run("catalog", "add", tiny, "--catalog", own).code == 0
    result = run("catalog", "add", tiny, "--catalog", own)
    assert result.code == 2
    assert result.error == f"{own / 'pipelines' / 'tiny.yaml'}: is there already"


def test_add_refuses_a_name_that_another_file_has(run, tiny: Path, own: Path, tmp_path) -> None:
    assert run("catalog", "add", tiny, "--catalog", own).code == 0
    other = tiny.rename(tmp_path / "other.yaml")
    result = run("catalog", "add", other, "--catalog", own)
    assert result.code == 2
    assert "the pipeline 'tiny:1b' is in" in result.error
    assert [path.name for path in (own / "pipelines").iterdir()] == ["tiny.yaml"]


def test_add_keeps_to_a_folder_of_pipeline_files(run, tiny: Path, own: Path, tmp_path) -> None:
    text = tiny.read_text(encoding="utf-8").replace("tiny:1b", "first:1b")
    (own / "first.yaml").write_text(text, encoding="utf-8")
    assert run("catalog", "add", tiny, "--catalog", own).out == f"{own / 'tiny.yaml'}\n"
    listed = run("catalog", "list", "--json", "--catalog", own).json["result"]["pipelines"]
    assert {"first:1b", "tiny:1b"} <= {one["name"] for one in listed}
    # a folder `cards` in it would hide the pipelines
    (tmp_path / "cards.yaml").write_text(CARDS, encoding="utf-8")
    result = run("catalog", "add", "cards.yaml", "--catalog", own)
    assert result.code == 2
    assert result.error == f"{own}: a folder of pipeline files takes no cards"


def test_add_refuses_a_file_with_a_mistake(run, tiny: Path, own: Path) -> None:
    tiny.write_text(tiny.read_text("utf-8").replace("llama.cpp", "lama.cpp"), encoding="utf-8")
    result = run("catalog", "add", tiny, "--catalog", own)
    assert (result.code, result.out) == (2, "")
    assert "unknown runtime 'lama.cpp'" in result.error
    assert result.hint == "did you mean 'llama.cpp'?"
    assert not list(own.iterdir())


def test_add_refuses_a_project(run, tmp_path, own: Path) -> None:
    (tmp_path / "vramplan.yaml").write_text("targets: [sd15]\n", encoding="utf-8")
    result = run("catalog", "add", "vramplan.yaml", "--catalog", own)
    assert result.code == 2
    assert "only a file of a pipeline or of cards" in result.error


# -- folders --------------------------------------------------------------------------------------


@pytest.mark.parametrize("inside", ["nothing", "pipelines", "config.json", "tapes"])
def test_a_folder_with_nothing_of_a_catalogue_is_said_to_be_one(run, tmp_path, inside) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    if inside == "config.json":
        (folder / inside).write_text("{}", encoding="utf-8")
    elif inside != "nothing":
        (folder / inside).mkdir()
    result = run("catalog", "validate", folder)
    assert (result.code, result.out) == (2, "")
    assert result.error == f"{folder}: nothing of a catalogue is in it"
    assert "pipelines and cards" in result.hint
    found = run("catalog", "validate", folder, "--json")
    assert (found.code, len(found.json["result"]["errors"])) == (2, 1)


def test_a_folder_that_nobody_named_may_be_empty(run, tmp_path) -> None:
    assert run("catalog", "validate", "--catalog", tmp_path).code == 0


def test_a_project_in_a_folder_is_validated_too(run, tmp_path) -> None:
    (tmp_path / "vramplan.yaml").write_text("targets: 3\n", encoding="utf-8")
    assert "vramplan.yaml:1:10: targets" in run("catalog", "validate", tmp_path).error


def test_add_takes_no_folder_and_says_what_to_do(run, tiny, tmp_path) -> None:
    result = run("catalog", "add", tiny.parent, "--catalog", tmp_path / "own")
    assert result.error == f"{tiny.parent}: a folder; add takes one file"
    assert "--catalog" in result.hint
    assert not (tmp_path / "own").exists()


@pytest.mark.parametrize("name", ["model_index.json", "config.json"])
def test_no_hint_names_what_cannot_be_done(run, tmp_path, name) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / name).write_text("{}", encoding="utf-8")
    result = run("check", folder, "--card", "8gb")
    assert result.code == 2
    assert "catalog add" not in result.err


def test_a_list_by_words(run) -> None:
    found = run("catalog", "list", "llava", "OLLAMA", "--json").json["result"]["pipelines"]
    named = [one["name"] for one in found]
    assert "llava:7b" in named
    assert all("llava" in name for name in named)
    done = run("catalog", "list", "lava7")
    assert (done.code, done.out) == (2, "")
    assert "no pipeline of the catalogue has 'lava7' in it" in done.error
