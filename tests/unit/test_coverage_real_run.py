"""A recording beside the same run with real data."""

from __future__ import annotations

import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

from tools.coverage import models
from tools.coverage.real_run import Heard, compare
from tools.coverage.results import Subject


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
