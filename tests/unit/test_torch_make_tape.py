"""A new tape is proved at sizes that were not recorded together."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

pytest.importorskip("torch")

from vramplan.engines.torch.make_tape import unseen_samples
from vramplan.engines.torch.record.session import Sample


def sample(width: int, batch: int, *, keep_main: bool = True, **facts: str) -> Sample:
    return Sample(numbers={"width": width, "batch": batch}, facts=facts, keep_main=keep_main)


def test_every_session_is_proved_at_numbers_that_it_has_not_seen_together() -> None:
    first = [sample(512, 1, mode="a"), sample(512, 2, mode="a"), sample(768, 3, mode="a")]
    second = [sample(64, 9, keep_main=False), sample(8, 1, mode="b")]
    halves = [sample(64, 9, keep_main=False)]
    recipe = SimpleNamespace(sessions=[({}, first), ({}, second), ({}, halves)])
    mixed, only = unseen_samples(recipe)
    assert mixed.numbers not in [one.numbers for one in first]
    assert mixed.numbers["width"] in (512, 768)
    assert mixed.numbers["batch"] in (1, 2, 3)
    assert mixed.facts == {"mode": "a"}
    assert only.numbers == {"width": 8, "batch": 1}, "there is nothing to mix it with"
