"""Saved models that are recorded on the spot, as a user asks for them."""

from __future__ import annotations

import contextlib
import io
import json
import sys
from pathlib import Path

import pytest

from vramplan.cli import main
from vramplan.engines.torch import kept_recordings, recorded_model

sys.path.insert(0, str(Path(__file__).parents[1]))

import saved_models as saved  # after the path

CONFIG = {
    "architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2", "hidden_size": 64,
    "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "vocab_size": 256, "tie_word_embeddings": False,
}  # fmt: skip
#: its parameters: embeddings and head, two layers, and the last norm
ELEMENTS = 2 * 256 * 64 + 2 * (2 * (64 * 64 + 64 * 32) + 64 + 2 * 32 + 3 * 64 * 128 + 2 * 64) + 64


def language_model(folder: Path, **config: object) -> Path:
    saved.write(folder / "model.safetensors", [("all", "BF16", (ELEMENTS,))])
    (folder / "config.json").write_text(json.dumps({**CONFIG, **config}))
    return folder


def estimate(capsys, *arguments: str) -> tuple[dict, str]:
    assert main(["estimate", *arguments, "--card", "rtx-4090", "--json"]) == 0
    said = capsys.readouterr()
    return json.loads(said.out)["result"], said.err


def origins(found: dict) -> dict[str, str]:
    return {line["kind"]: line["origin"] for line in found["terms"]}


ASKED = ("--set", "prompt_tokens=64", "--set", "new_tokens=32")


@pytest.fixture(scope="module")
def recorded(tmp_path_factory) -> tuple[Path, Path, str, str]:
    """Return a model, a cache that remembers its recording, and what was printed and said."""
    for name in ("torch", "diffusers", "transformers"):
        pytest.importorskip(name)
    folder = tmp_path_factory.mktemp("recorded")
    model, cache = language_model(folder / "mine"), folder / "cache"
    words = ["estimate", str(model), *ASKED, "--card", "rtx-4090", "--json"]
    with (
        pytest.MonkeyPatch.context() as patch,
        contextlib.redirect_stdout(io.StringIO()) as out,
        contextlib.redirect_stderr(io.StringIO()) as err,
    ):
        patch.delenv(recorded_model.SWITCH, raising=False)
        patch.setenv("VRAMPLAN_CACHE", str(cache))
        assert main(words) == 0
    return model, cache, out.getvalue(), err.getvalue()


@pytest.mark.usefixtures("recorder")
def test_a_model_without_a_tape_is_recorded(recorded, capsys, monkeypatch) -> None:
    folder, _, printed, said = recorded
    found = json.loads(printed)["result"]
    assert origins(found)["weights"] == "exact"
    assert origins(found)["activations"] == "replayed"
    (line,) = [line for line in found["terms"] if line["kind"] == "activations"]
    assert line["source"].startswith("its recording, ")
    assert "recorded here by its own code" in said
    assert any("recorded here" in note and "transformers" in note for note in found["notes"])
    assert {phase["name"] for phase in found["phases"]} >= {"prefill", "generate"}
    # new tokens are the tape's own setting: nothing is recorded again
    monkeypatch.setattr(recorded_model, "_record", None)
    longer, _ = estimate(
        capsys, str(folder), "--set", "prompt_tokens=64", "--set", "new_tokens=900"
    )
    grown = longer["peak"]["allocated_bytes"] - found["peak"]["allocated_bytes"]
    cache = 2 * 2 * 32 * 2  # keys and values of a token: layers, key heads, bytes
    assert grown >= (900 - 64) * cache // 2


@pytest.mark.usefixtures("recorder")
def test_a_window_that_closes_is_said(tmp_path, capsys) -> None:
    more = {"use_sliding_window": True, "sliding_window": 80}
    folder = language_model(tmp_path / "mine", **more)
    asked = ("--set", "prompt_tokens=64", "--set", "new_tokens=32")
    found, _ = estimate(capsys, str(folder), *asked)
    assert any("window of 80 tokens" in note for note in found["notes"])
    assert origins(found)["activations"] == "replayed"


@pytest.mark.usefixtures("recorder")
def test_what_cannot_be_recorded_is_counted_and_says_why(tmp_path, capsys) -> None:
    folder = language_model(tmp_path / "mine", hidden_size=32)
    found, _ = estimate(capsys, str(folder))
    assert origins(found)["activations"] == "assumed"
    (note,) = [note for note in found["notes"] if "could not be recorded" in note]
    assert "its files have" in note


def test_without_libraries_it_is_counted(tmp_path, capsys, monkeypatch) -> None:
    monkeypatch.delenv(recorded_model.SWITCH, raising=False)
    monkeypatch.setattr(recorded_model, "_NEEDED", ("no_library_here",))
    folder = language_model(tmp_path / "mine")
    found, said = estimate(capsys, str(folder))
    assert origins(found)["activations"] == "assumed"
    assert "its weights are counted" in said
    assert any("no_library_here is not installed" in note for note in found["notes"])


@pytest.mark.usefixtures("recorder")
def test_quantised_weights_are_counted(tmp_path, capsys, monkeypatch) -> None:
    monkeypatch.setattr(recorded_model, "_record", None)
    folder = tmp_path / "mine"
    saved.write(folder / "model.safetensors", [("all", "U8", (1 << 20,))])
    (folder / "config.json").write_text(json.dumps(CONFIG))
    found, _ = estimate(capsys, str(folder))
    assert origins(found)["activations"] == "assumed"


def forget_in_this_process() -> None:
    for path in (kept_recordings.folder() / "tapes").iterdir():
        path.unlink()


@pytest.mark.usefixtures("recorder")
def test_a_recording_is_remembered(recorded, capsys, monkeypatch) -> None:
    folder, cache, printed, _ = recorded
    monkeypatch.setenv("VRAMPLAN_CACHE", str(cache))
    first = json.loads(printed)["result"]
    assert origins(first)["activations"] == "replayed"
    monkeypatch.setattr(recorded_model, "_record", None)
    forget_in_this_process()
    again, _ = estimate(capsys, str(folder), *ASKED)
    assert again == first
    forget_in_this_process()
    assert (
        main(["plan", str(folder), *ASKED, "--card", "rtx-4090"]) == 0
    )  # a search: it records nothing
    assert "assumed" not in capsys.readouterr().out


@pytest.mark.usefixtures("recorder")
def test_a_report_on_the_whole_catalogue_records_nothing(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(recorded_model, "_record", None)
    page = tmp_path / "fit.md"
    assert main(["report", "--card", "80gb", "-o", str(page)]) == 0
    assert "qwen3-8b" in page.read_text(encoding="utf-8")


@pytest.mark.parametrize("kept", [None, "text", [], [1], ["no base64!"], ["AAAA"], {"a": 1}])
def test_what_is_no_recording_is_not_taken(kept: object) -> None:
    assert kept_recordings._unpacked(kept) is None
    assert kept_recordings._unpacked(kept_recordings._packed("x" * 200_000)) == "x" * 200_000


def test_recordings_do_not_grow_for_ever(monkeypatch) -> None:
    monkeypatch.setattr(kept_recordings, "_MOST", 3)
    for number in range(5):
        kept_recordings.keep(f"test-{number}", "{}")
    assert kept_recordings.find("test-4")
    assert not kept_recordings.find("test-0")


@pytest.mark.parametrize("value", ["off", "OFF"])
def test_it_can_be_switched_off(monkeypatch, value: str) -> None:
    monkeypatch.setenv(recorded_model.SWITCH, value)
    assert recorded_model.missing_library() == f"{recorded_model.SWITCH} is off"


def test_a_script_may_have_nothing_recorded(run, monkeypatch) -> None:
    """``--no-record`` is for the one command: nothing is recorded, and the next one may."""
    from vramplan import recording_switch

    monkeypatch.delenv(recording_switch.SWITCH)
    target = "llama-3.2-1b[prompt_tokens=8]"
    found = run("estimate", target, "--card", "rtx-4090", "--no-record")
    assert found.code == 0
    assert "recording" not in found.err
    assert "it is not recorded here" in found.out
    assert not recording_switch.is_off()
    monkeypatch.setenv(recording_switch.SWITCH, "on")
    with recording_switch.switched_off():
        assert recording_switch.is_off()
    assert not recording_switch.is_off()
