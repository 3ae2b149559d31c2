"""Prompts of a batch are taken to be equally long, and it is said what they take otherwise."""

from __future__ import annotations

import pytest

from vramplan.ask.targets import make_jobs, open_catalog
from vramplan.engines.door import engine_of
from vramplan.engines.torch.padding import mask_bytes, padding_note
from vramplan.engines.torch.pipeline import of_torch


def note_of(target: str) -> str | None:
    (job,) = make_jobs([target], open_catalog(), {})
    return padding_note(of_torch(job.pipeline), job.settings)


def test_masks_are_a_byte_and_an_element_for_each_two_tokens() -> None:
    """As recorded of a Llama and a BERT of two prompts of 512 tokens, half of one of them padded:
    524,288 bytes that stay, and 1,048,576 at each layer."""
    assert mask_bytes(2, 512, 2) == 524_288 + 1_048_576
    assert mask_bytes(2, 512, 4) == 524_288 + 2 * 1_048_576


@pytest.mark.parametrize(
    ("target", "most"),
    [
        ("qwen3-0.6b[batch=4,prompt_tokens=1024]", "12 MiB"),
        ("bge-m3[batch=64,prompt_tokens=512]", "48 MiB"),
        ("bge-m3[batch=64,prompt_tokens=512,dtype=fp32]", "80 MiB"),
    ],
)
def test_several_prompts_say_what_padding_takes(target: str, most: str) -> None:
    told = note_of(target)
    assert told is not None
    assert "taken to be equally long" in told
    assert f"up to {most} " in told


@pytest.mark.parametrize("target", ["qwen3-0.6b", "sd15[batch=4]", "whisper-tiny[batch=4]"])
def test_what_has_no_padding_says_nothing_of_it(target: str) -> None:
    assert note_of(target) is None


def test_an_estimate_says_it() -> None:
    catalog = open_catalog()
    (job,) = make_jobs(["all-minilm-l6-v2[batch=2]"], catalog, {})
    found = engine_of(job.pipeline).estimate(job, catalog.cards["rtx-4090"])
    assert any("equally long" in note for note in found.notes)
