"""A header alone is enough for the engine: what it says of it is what it says of the file."""

from __future__ import annotations

import importlib.util
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import pytest

from vramplan.engines.ggml.open import open_model
from vramplan.engines.ggml.pipeline import ModelFile
from vramplan.engines.ggml.witness.answer import RefusedError, ask_engine, ask_projector
from vramplan.engines.ggml.witness.hollow_file import file_of
from vramplan.engines.ggml.witness.pretended_card import PretendedCard
from vramplan.engines.ggml.witness.side_by_side import ask_witness
from vramplan.errors import MeasurementError
from vramplan.sources.gguf import read_gguf

pytest.importorskip("xllamacpp")
pytest.importorskip("gguf")
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the pretended card is for Linux")


def _module(name: str):
    path = Path(__file__).parents[1] / f"{name}.py"
    spec = importlib.util.spec_from_file_location(name, path)
    found = sys.modules.setdefault(name, importlib.util.module_from_spec(spec))
    spec.loader.exec_module(found)
    return found


sparse, projectors = _module("sparse_gguf"), _module("sparse_projectors")
FAMILIES = sparse.families()
GIB = 1 << 30
CARD = PretendedCard(name="pretended", total_bytes=80 * GIB, free_bytes=79 * GIB)
SETTINGS = {"context": 4096, "gpu_layers": 2, "flash_attention": "on"}


def hold(folder: Path, name: str) -> None:
    path = sparse.write(folder / "model.gguf", FAMILIES[name])
    header = replace(read_gguf(path), path="hf:org/name:model.gguf")
    with file_of(header) as hollow:
        assert hollow != path
        told = ask_engine(hollow, SETTINGS, card=CARD)
    assert not hollow.parent.exists()
    theirs = ask_engine(path, SETTINGS, card=CARD)
    assert (told.layers, told.nodes) == (theirs.layers, theirs.nodes)
    # a file without words is shorter, which only the mapped part of it shows
    assert [one for one in told.buffers if "Mapped" not in one.device] == [
        one for one in theirs.buffers if "Mapped" not in one.device
    ]


@pytest.mark.parametrize("name", ["llama", "gemma3", "qwen3moe", "deepseek2", "falcon-h1"])
def test_a_header_says_to_the_engine_what_its_file_does(tmp_path, name) -> None:
    hold(tmp_path, name)


@pytest.mark.slow
@pytest.mark.parametrize("name", FAMILIES)
def test_over_every_family(tmp_path, name) -> None:
    hold(tmp_path, name)


def test_a_projectors_header_too(tmp_path) -> None:
    path = sparse.write(tmp_path / "mmproj.gguf", projectors.llava())
    with file_of(replace(read_gguf(path), path="hf:org/name:mmproj.gguf")) as hollow:
        assert ask_projector(hollow, {}) == ask_projector(path, {})


def test_the_engine_is_asked_of_a_header_from_a_hub(tmp_path) -> None:
    path = sparse.write(tmp_path / "model.gguf", FAMILIES["llama"])
    pipeline = open_model(str(path), None)
    header = replace(pipeline.model.header, path="hf:org/name:model.gguf")
    pipeline = replace(pipeline, path=header.path, model=ModelFile(header=header))
    rows = {row.name: row.size for row in ask_witness(pipeline, pipeline.defaults).rows}
    for name in ("KV cache", "compute"):
        assert rows[name].estimate_bytes == pytest.approx(rows[name].measured_bytes, abs=8_000)


def test_a_refusal_names_the_header_and_no_file_of_ours(tmp_path) -> None:
    path = sparse.write(tmp_path / "model.gguf", FAMILIES["llama"])
    found = read_gguf(path)
    header = replace(found, path="hf:org/name:model.gguf", tensors=found.tensors[:-1])
    refused = pytest.raises(RefusedError, match=r"^hf:org/name:model.gguf: the engine refuses it")
    with refused, file_of(header) as hollow:
        ask_engine(hollow, SETTINGS, card=CARD)
    assert not hollow.parent.exists()


def test_numbers_of_any_size_are_written(tmp_path) -> None:
    header = read_gguf(sparse.write(tmp_path / "model.gguf", FAMILIES["llama"]))
    numbers = {
        "a": 1e300, "b": float("inf"), "c": -(1 << 63), "d": (1 << 64) - 1, "e": (-1, 1 << 31),
        "f": (), "g": (True, False), "h": (1.5, -2.5), "i": "\ufffd",
    }  # fmt: skip
    given = replace(header, path="hf:org/name:x.gguf", metadata={**header.metadata, **numbers})
    with file_of(given) as hollow:
        found = read_gguf(hollow)
    assert {key: found.metadata[key] for key in numbers} == numbers
    assert found.tensors == header.tensors


def test_where_no_file_can_be_written_it_is_said(tmp_path, monkeypatch) -> None:
    path = sparse.write(tmp_path / "model.gguf", FAMILIES["llama"])
    found = read_gguf(path)
    huge = replace(found.tensors[0], shape=(1 << 20, 1 << 22), type="f32")
    header = replace(found, path="hf:org/name:model.gguf", tensors=(huge,) * 100_000)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    refused = pytest.raises(MeasurementError, match="no file for the engine to look at")
    with refused, file_of(header):
        pytest.fail("there is room for 1,600 PiB")
    assert [one.name for one in tmp_path.iterdir()] == ["model.gguf"]
