"""A recording beside the same run with real data."""

from __future__ import annotations

import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

import torch

from tools.coverage import models
from tools.coverage.real_run import Heard, RealDevice, compare
from tools.coverage.results import Subject
from vramplan.engines.torch.record.saved.wrapped import (
    CUDA,
    Functions,
    WrappedDevice,
    cuda_asked_for,
)
from vramplan.engines.torch.record.stream import Alloc, Stream


def heard(*sizes: int, peak: int = 9) -> Heard:
    return Heard(sizes=list(sizes), operators=["aten.add.Tensor"] * len(sizes), peak=peak)


def test_what_is_unlike_is_said_by_its_first_place() -> None:
    assert compare(heard(1, 2), heard(1, 2)) == "equal"
    assert compare(heard(1, 3), heard(1, 2)) == (
        "peak equal: add.Tensor 3 B at 1, really add.Tensor 2 B at 1 (of 2)"
    )
    assert compare(heard(1), heard(1, 2)).endswith(
        "nothing as number 1, really add.Tensor 2 B at 1 (of 2)"
    )
    assert compare(heard(1, peak=10), heard(1, peak=8)).startswith("differs by +25.00% at its peak")


def test_a_small_model_is_recorded_and_held_against_its_run() -> None:
    told: dict[str, str] = {}
    subject = Subject(kind="causal", name="gpt2", class_name="GPT2LMHeadModel")
    models.record(subject, lambda **known: told.update(known))
    assert told == {"stage": "recorded", "how": "its inputs by name", "fidelity": "equal"}


def test_a_bag_of_embeddings_notes_what_a_gpu_does() -> None:
    """For every index its bag, whichever device computes."""
    sizes = []
    for device in (RealDevice(set()), WrappedDevice(Stream("main", {}), set(), small=0)):
        with cuda_asked_for("flash"), device, Functions("flash"):
            table = torch.ones(8, 6, device="cuda")
            places = torch.tensor([[0, 1, 2], [3, 4, 5]]).to(CUDA)
            torch.nn.functional.embedding_bag(places, table, mode="sum")
        events = [one for one in device.stream.events if isinstance(one, Alloc)]
        sizes.append([one.size_bytes for one in events if "embedding_bag" in one.operator])
    assert sizes[0] == sizes[1]
    assert 6 * 8 in sizes[0]
