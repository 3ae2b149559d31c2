"""Files of weights that hold none: what a library reads from them, and what they take."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
safetensors = pytest.importorskip("safetensors.torch")

from vramplan.engines.torch.witness import hollow_weights  # noqa: E402  # torch may be missing


@pytest.fixture
def tensors() -> dict[str, object]:
    tied = torch.empty(1000, 1000, device="meta")
    return {
        "embed": tied, "scale": torch.empty(1000, device="meta"), "head": tied,
        "ids": torch.empty(8, device="meta", dtype=torch.int64), "nothing": torch.empty(0),
    }  # fmt: skip


def test_library_reads_names_shapes_and_zeros_and_no_disk_is_taken(tmp_path: Path, tensors) -> None:
    hollow_weights.write_hollow(tmp_path, "model", tensors, torch.float16)
    (path,) = tmp_path.iterdir()
    assert path.name == "model.safetensors"
    assert path.stat().st_size > 2_000_000
    assert path.stat().st_blocks * 512 < 100_000
    read = safetensors.load_file(path)
    assert {name: (one.dtype, tuple(one.shape)) for name, one in read.items()} == {
        "embed": (torch.float16, (1000, 1000)),  # `head` is the same storage: it is tied again
        "scale": (torch.float16, (1000,)),
        "ids": (torch.int64, (8,)),
        "nothing": (torch.float16, (0,)),
    }
    assert not any(one.any() for one in read.values())


def test_what_is_large_is_several_files_with_an_index(tmp_path: Path, tensors, monkeypatch) -> None:
    monkeypatch.setattr(hollow_weights, "_LARGEST_FILE", 2_000_000)
    hollow_weights.write_hollow(tmp_path, "model", tensors, torch.float16)
    index = json.loads((tmp_path / "model.safetensors.index.json").read_text())["weight_map"]
    assert set(index) == {"embed", "scale", "ids", "nothing"}
    assert set(index.values()) == {f"model-0000{n}-of-00002.safetensors" for n in (1, 2)}
    for name, file in index.items():
        assert name in safetensors.load_file(tmp_path / file)


def test_class_is_built_without_memory_and_leaves_the_random_numbers() -> None:
    class Net(torch.nn.Module):
        @classmethod
        def from_config(cls, config: dict[str, int]) -> Net:
            made = cls()
            made.up = torch.nn.Linear(config["size"], 10**6)
            torch.rand(3)
            return made

    before = torch.get_rng_state()
    found = hollow_weights.tensors_of(Net, {"size": 10**6})
    assert found["up.weight"].shape == (10**6, 10**6)
    assert found["up.weight"].is_meta
    assert torch.equal(before, torch.get_rng_state())


# ---------------------------------------------------------------- files whose header alone is here
@pytest.fixture
def opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    from vramplan.engines.torch.witness import hollow_files

    run = tmp_path / "run"
    run.mkdir()
    monkeypatch.setattr(hollow_files, "run_folder", lambda: run)
    monkeypatch.setattr(hollow_files, "is_ours", lambda place: place.startswith(str(run)))
    hollow_files._hollow.cache_clear()
    return hollow_files


def _part(path: Path, header: object, rest: int = 0, length: int | None = None) -> str:
    told = header if isinstance(header, bytes) else json.dumps(header).encode()
    size = len(told) if length is None else length
    path.write_bytes(size.to_bytes(8, "little") + told + bytes(rest))
    return str(path)


HEADER = {"a": {"dtype": "F16", "shape": [1000], "data_offsets": [0, 2000]}}


def test_file_that_ends_early_is_opened_as_a_hollow_one(opened, tmp_path: Path) -> None:
    name = _part(tmp_path / "part.safetensors", HEADER, 10)
    made = opened.hollow_of(name)
    assert made != name
    assert opened.hollow_of(name) == made  # once
    assert opened.hollow_of(made) == made
    read = safetensors.load_file(made)
    assert {key: (one.dtype, len(one)) for key, one in read.items()} == {"a": (torch.float16, 1000)}


def test_whole_file_is_opened_itself_unless_it_is_large(
    opened, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = _part(tmp_path / "whole.safetensors", HEADER, 2000)
    assert opened.hollow_of(name) == name
    opened._hollow.cache_clear()
    monkeypatch.setattr(opened, "_LARGE", 1000)
    assert opened.hollow_of(name) != name


@pytest.mark.parametrize(
    ("header", "length"),
    [
        (b"", 0),
        (b"{}", 1 << 60),
        (b"[1, 2]", None),
        (b"{", None),
        (b'{"a": 3}', None),
        (b'{"a": {"data_offsets": ["x", []]}}', None),
        (b'{"a": {"data_offsets": [0, 99999999999999999999]}}', None),
        (b'{"a": {"data_offsets": [0, -5000]}}', None),
        (b"[" * 100_000, None),
    ],
)
def test_what_is_no_such_file_is_left_to_the_library(
    header: bytes, length: int | None, opened, tmp_path: Path
) -> None:
    name = _part(tmp_path / "bad.safetensors", header, length=length)
    assert opened.hollow_of(name) == name
    assert not list((tmp_path / "run").iterdir())


def test_file_that_is_not_there_is_left_to_the_library(opened, tmp_path: Path) -> None:
    assert opened.hollow_of(str(tmp_path / "none")) == str(tmp_path / "none")
