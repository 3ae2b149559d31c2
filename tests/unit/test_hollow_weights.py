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
