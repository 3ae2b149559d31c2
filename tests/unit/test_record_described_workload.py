"""An entry without a recipe as a program for a device: its parts, and what it tells of its run."""

from __future__ import annotations

import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

import torch

from vramplan.catalog import load_catalog
from vramplan.engines.torch.open import open_entry
from vramplan.engines.torch.record.described_workload import DescribedWorkload, _Heard
from vramplan.engines.torch.record.stream import Stream
from vramplan.errors import UsageError
from vramplan.settings import resolve_settings


def workload(name: str, **settings: object) -> DescribedWorkload:
    pipeline = open_entry(load_catalog([]).pipeline(name), ())
    return DescribedWorkload(pipeline, resolve_settings(pipeline, settings), "8.6")


def test_it_builds_what_the_entry_describes_without_data() -> None:
    program = workload("dinov2-small", dtype="fp16")
    (model,) = program.build().values()
    assert sum(one.numel() for one in model.parameters()) == 22_056_576
    assert {one.dtype for one in model.parameters()} == {torch.float16}
    assert {one.device.type for one in model.parameters()} == {"meta"}
    assert not model.training
    assert not program.keeps_on_host


def test_decoding_alone_is_refused_because_nobody_knows_what_is_decoded() -> None:
    with pytest.raises(UsageError, match="taesd: decode alone is not run"):
        workload("taesd", mode="decode")


def test_a_call_is_told_as_the_component_that_works_and_then_its_caller_again() -> None:
    told: list[tuple[str, str]] = []
    heard = _Heard(lambda phase, component: told.append((phase, component)))
    outer = heard.stream
    heard.begin_phase("denoise")
    heard.stream = Stream("unet", {})
    heard.stream = outer
    assert told == [("denoise", "pipeline"), ("denoise", "unet"), ("denoise", "pipeline")]
