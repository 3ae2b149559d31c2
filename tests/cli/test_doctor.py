"""``vramplan doctor``: what is said about an installation, and that only broken is an error."""

from __future__ import annotations

import importlib.metadata
import json
import re
from pathlib import Path

import pytest

from vramplan import __version__
from vramplan.catalog import profiles_dir
from vramplan.extras import install_command


@pytest.fixture
def healthy(monkeypatch) -> None:
    """Say nothing about the tapes and the snapshot of this checkout: they are being worked on."""
    monkeypatch.setattr("vramplan.ask.doctor._tapes", lambda *_: iter(()))


def findings(result) -> dict[str, tuple[str, str]]:
    assert result.json["command"] == "doctor"
    return {
        found["thing"]: (found["state"], found["detail"])
        for found in result.json["result"]["findings"]
    }


@pytest.mark.usefixtures("healthy")
def test_a_healthy_machine_without_a_gpu(run) -> None:
    result = run("doctor", "--json")
    assert (result.code, result.err) == (0, "")
    found = findings(result)
    assert found["vramplan"][1].startswith(f"{__version__} in ")
    assert found["PyYAML"] == ("ok", importlib.metadata.version("PyYAML"))
    state, detail = found["GPU"]
    assert state == "note"
    assert detail.startswith("no NVIDIA driver")
    assert found["catalogue"][0] == "ok"
    assert str(profiles_dir()) in found["catalogue"][1]
    assert found["snapshot"][0] in ("ok", "note")


@pytest.mark.usefixtures("healthy")
def test_gpus_are_named(run, driver, gpu) -> None:
    pynvml = pytest.importorskip("pynvml")
    driver(gpu(), gpu(error=pynvml.NVML_ERROR_GPU_IS_LOST))
    result = run("doctor", "--json")
    assert result.code == 0
    found = findings(result)
    assert found["NVIDIA driver"] == ("ok", "570.124.04")
    assert found["GPU 0"][1].startswith("NVIDIA GeForce RTX 3060, 12.00 GiB, ")
    assert found["GPU"][0] == "note"
    assert found["GPU"][1].startswith("GPU 1: the GPU is lost")


@pytest.mark.usefixtures("healthy")
def test_a_missing_extra_is_a_note_and_a_missing_base_is_broken(run, monkeypatch) -> None:
    versions = importlib.metadata.version

    def without(*missing: str):
        def version(name: str) -> str:
            if name in missing:
                raise importlib.metadata.PackageNotFoundError(name)
            return versions(name)

        monkeypatch.setattr(importlib.metadata, "version", version)

    without("torch", "accelerate")
    result = run("doctor", "--json")
    assert result.code == 0
    assert findings(result)["torch"][0] == "note"
    assert install_command("gpu") in findings(result)["torch"][1]
    without("pyarrow", "ray", "xllamacpp")
    found = findings(run("doctor", "--json"))
    for name, extra in (("pyarrow", "parquet"), ("ray", "cluster"), ("xllamacpp", "engine")):
        assert found[name][0] == "note"
        assert install_command(extra) in found[name][1]
    assert found["cache"] == ("note", "none: switched off")
    without("tabulate")
    result = run("doctor", "--json")
    assert result.code == 2
    assert findings(result)["tabulate"] == ("broken", "not installed: pip install tabulate")


@pytest.mark.usefixtures("healthy")
def test_a_mistake_in_a_catalogue_is_broken(run, tiny: Path) -> None:
    tiny.write_text("name: x\nname: y\n", encoding="utf-8")
    result = run("doctor", "--catalog", tiny.parent, "--json")
    assert result.code == 2
    details = [one["detail"] for one in result.json["result"]["findings"]]
    assert any(f"{tiny}:2:1: the key 'name' appears twice" in detail for detail in details)


@pytest.mark.usefixtures("healthy")
def test_a_folder_that_is_not_there_is_broken(run) -> None:
    result = run("doctor", "--catalog", "nowhere", "--json")
    assert result.code == 2
    details = [one["detail"] for one in result.json["result"]["findings"]]
    assert "--catalog: nowhere is not a folder" in details


@pytest.mark.usefixtures("healthy")
def test_table_and_markdown_say_the_same(run) -> None:
    table = run("doctor")
    assert table.code == 0
    assert table.out.splitlines()[0].split() == ["what", "state", "detail"]
    assert "✓ ok" in table.out
    marked = run("doctor", "--format", "markdown").out
    assert re.match(r"\| what +\| state +\| detail +\|", marked)
    assert "| ✓ ok " in marked


# -- tapes --------------------------------------------------------------------------------------

PIPELINE = """\
name: mine
title: Mine
summary: A VAE for tests.
runtime: diffusers
source: made up
tape: mine
settings: {image: 512, dtype: fp16}
components: [{name: vae, class: diffusers.AutoencoderKL}]
"""


@pytest.fixture
def tape(tmp_path) -> Path:
    (tmp_path / "pipelines").mkdir()
    (tmp_path / "pipelines" / "mine.yaml").write_text(PIPELINE, encoding="utf-8")
    (tmp_path / "tapes").mkdir()
    return tmp_path / "tapes" / "mine.json"


def tape_state(run, tape: Path) -> tuple[str, str]:
    result = run("doctor", "--catalog", tape.parents[1], "--json")
    return findings(result)["tape of mine"]


def test_a_missing_and_a_damaged_tape_are_broken(run, tape: Path) -> None:
    state, detail = tape_state(run, tape)
    assert state == "broken"
    assert "no tape mine.json" in detail
    assert "vramplan record mine" in detail
    tape.write_text('{"schema": 1, "pipe', encoding="utf-8")
    state, detail = tape_state(run, tape)
    assert state == "broken"
    assert "not a whole tape" in detail


def test_what_ships_is_not_broken_and_takes_a_line_or_two(run) -> None:
    result = run("doctor", "--json")
    found = [one for one in result.json["result"]["findings"] if one["thing"].startswith("tape")]
    assert result.code == 0
    assert 1 <= len(found) <= 4
    assert sum(int(one["detail"].split()[0]) for one in found if one["thing"] == "tapes") > 20


def test_a_tape_of_other_versions_is_a_note(run, tape: Path, monkeypatch) -> None:
    shipped = profiles_dir() / "tapes" / "sd15.json"
    if not shipped.is_file():
        pytest.skip("no tape ships yet")
    content = json.loads(shipped.read_text(encoding="utf-8"))
    tape.write_text(json.dumps(content), encoding="utf-8")
    content_versions = content["recorded_with"]
    versions = importlib.metadata.version

    def pretend(changed: dict[str, str]) -> None:
        known = {**content_versions, **changed}
        monkeypatch.setattr(
            importlib.metadata, "version", lambda name: known.get(name) or versions(name)
        )

    pretend({})
    assert tape_state(run, tape)[0] == "ok"
    pretend({"diffusers": "0.1.0"})
    state, detail = tape_state(run, tape)
    assert state == "note"
    assert "installed is diffusers 0.1.0" in detail
    assert "vramplan record mine --check" in detail
