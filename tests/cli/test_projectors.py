"""Projector files at the command line: what is said of families, images and unknown encoders."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("gguf")

_PATH = Path(__file__).parents[1] / "sparse_projectors.py"
_SPEC = importlib.util.spec_from_file_location("sparse_projectors", _PATH)
projectors = sys.modules.setdefault("sparse_projectors", importlib.util.module_from_spec(_SPEC))
_SPEC.loader.exec_module(projectors)
sparse = projectors.sparse

MIB = 1 << 20


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("projectors")
    language = sparse.language_model("qwen2", embedding=3584, heads=28, kv_heads=4)
    sparse.write(folder / "m.gguf", sparse.dense_layers(language, "qkv bias"))
    (folder / "eyes").mkdir()
    for name, model in projectors.families().items():
        sparse.write(folder / "eyes" / f"{name}.gguf", model)
    unknown = projectors.llava()
    unknown.meta["projector_type"] = "tea_leaves"
    sparse.write(folder / "eyes" / "unknown.gguf", unknown)
    return folder


def estimate(run, models: Path, name: str, *words: str) -> dict[str, Any]:
    command = ("estimate", models / "m.gguf", "--mmproj", models / "eyes" / f"{name}.gguf")
    result = run(*command, *words, "--json")
    assert result.code == 0, result.error
    return result.json["result"]


def compute(shown: dict[str, Any]) -> dict[str, Any]:
    (term,) = (one for one in shown["terms"] if one["name"] == "projector compute")
    return term


def test_an_image_of_any_size_is_a_setting(run, models) -> None:
    """Qwen2.5-VL reserves for 1288x1288, and takes up to 1792x1792."""
    shown = estimate(run, models, "qwen2.5vl")
    assert shown["settings"]["image"] == "1288x1288"
    reserved = compute(shown)
    assert reserved["origin"] == "published"
    assert reserved["bytes"] == pytest.approx(459.27 * MIB, rel=0.001)
    larger = compute(estimate(run, models, "qwen2.5vl", "--image", "1600x1200"))
    assert reserved["bytes"] < larger["bytes"] < reserved["high_bytes"]
    notes = " ".join(shown["notes"])
    assert "1288x1288 is reserved for at load" in notes
    assert "1792x1792" in notes


def test_squares_have_no_setting(run, models) -> None:
    assert "image" not in estimate(run, models, "gemma3")["settings"]
    command = ("estimate", models / "m.gguf", "--mmproj", models / "eyes" / "gemma3.gguf")
    assert run(*command, "--image", "512").code == 2


def test_flash_attention_off_takes_the_scores(run, models) -> None:
    off = compute(estimate(run, models, "gemma3", "--set", "flash_attention=off"))
    assert off["bytes"] == pytest.approx(1132.0 * MIB, rel=0.001)


def test_the_projector_on_the_cpu_is_a_way_to_make_it_fit(run, models) -> None:
    """On a card that has no room for it, and has for the rest."""
    target = (models / "m.gguf", "--mmproj", models / "eyes" / "qwen2.5vl.gguf")
    words = (*target, "--gpu-layers", "all", "--json")

    def judged(*more: str) -> dict[str, Any]:
        return run("check", *words, "--card", "24gb", *more).json["result"]["verdicts"][0]

    whole, without = judged(), judged("--set", "mmproj_offload=off")
    assert without["need_high_bytes"] < whole["need_bytes"]
    card = ("--card", f"{(without['need_high_bytes'] + whole['need_bytes']) // 2 // MIB}MiB")
    plan = run("plan", *words, *card).json["result"]
    assert plan["verdict"] == "oom"
    assert {"mmproj_offload": "off"} in [way["settings"] for way in plan["changes"]]
    lines = [line for way in plan["changes"] for line in way["lines"]]
    assert "--no-mmproj-offload" in lines
    for way in plan["changes"]:
        given = [w for key, value in way["settings"].items() for w in ("--set", f"{key}={value}")]
        (found,) = run("check", *words, *card, *given).json["result"]["verdicts"]
        assert (found["verdict"], found["need_bytes"]) == (way["verdict"], way["need_bytes"])


def test_a_draft_left_out_is_a_way_to_make_it_fit(run, models) -> None:
    words = (models / "m.gguf", "--set", f"draft={models / 'm.gguf'}", "--gpu-layers", "all")
    (both,) = run("check", *words, "--card", "24gb", "--json").json["result"]["verdicts"]
    (alone,) = run("check", words[0], *words[3:], "--card", "24gb", "--json").json["result"][
        "verdicts"
    ]
    card = f"{(alone['need_high_bytes'] + both['need_bytes']) // 2 // MIB}MiB"
    plan = run("plan", *words, "--card", card, "--json").json["result"]
    (way,) = [one for one in plan["changes"] if one["settings"] == {"draft": "none"}]
    assert (way["lines"], way["verdict"]) == (["no -md"], "fits")
    again = run("check", words[0], *words[3:], "--card", card, "--json").json["result"]
    assert way["need_bytes"] == again["verdicts"][0]["need_bytes"]


def test_an_unknown_encoder_is_guessed_and_says_so(run, models) -> None:
    shown = estimate(run, models, "unknown")
    term = compute(shown)
    assert term["origin"] == "assumed"
    assert term["high_bytes"] > 2 * term["bytes"] > 7 * term["low_bytes"]
    assert any("'tea_leaves'" in note and "guess" in note for note in shown["notes"])
    assert shown["buffers"]["projector_bytes"] > 0


@pytest.mark.parametrize("name", ["llava", "qwen3vl", "internvl"])
def test_the_engine_is_asked_of_the_projector_too(run, models, name) -> None:
    pytest.importorskip("xllamacpp")
    shown = estimate(run, models, name, "--engine-check")
    rows = {row["name"]: row["size"] for row in shown["engine"]["buffers"]}
    both = rows["projector and its compute"]
    assert both["estimate_bytes"] == pytest.approx(both["measured_bytes"], abs=0.01 * MIB)
    assert rows["compute"]["measured_bytes"]
