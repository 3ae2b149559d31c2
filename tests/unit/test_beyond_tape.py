"""Beyond the settings that a tape was proved for: carried on, assumed, and without a jump."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from vramplan.ask.targets import make_jobs, open_catalog
from vramplan.engines.torch.beyond_tape import last_inside
from vramplan.engines.torch.estimate import (
    carried_on,
    estimate_torch,
    find_tape,
    open_tape,
    settled,
)
from vramplan.engines.torch.pipeline import of_torch
from vramplan.model import LineKind, Origin
from vramplan.quick_dataclass import replace

CATALOG = open_catalog()
CARD = CATALOG.card("rtx-4090").candidates[0]


def asked(name, changed):
    """Return an entry's pipeline as it is at some settings, and the settings."""
    (job,) = make_jobs([name], CATALOG, changed)
    pipeline = of_torch(job.pipeline)
    return settled(pipeline, job.settings, CARD.compute_capability), job.settings


def beyond(name, changed):
    pipeline, settings = asked(name, changed)
    assert pipeline.counted is not None, "the tape holds here"
    return carried_on(pipeline, settings, CARD)


def needs(found):
    band = found.need.band
    return band.low_bytes, band.expected_bytes, band.high_bytes


def test_where_a_tape_ends_its_estimate_goes_on_without_a_jump() -> None:
    """The VAE of FLUX.1 was recorded up to 2^23 pixels: what is counted would be twice as much."""
    pipeline, settings = asked("flux1-vae", {"image": (2856, 2856)})
    assert pipeline.counted is None
    edge = needs(estimate_torch(pipeline, settings, CARD))
    found = [needs(beyond("flux1-vae", {"image": (side, side)})) for side in (2904, 3200, 4096)]
    assert found[0][2] <= edge[2] * 1.1
    assert found[0][0] >= edge[0] * 0.9
    for low, expected, high in found:
        assert low < expected < high
    assert [high - low for low, _, high in found] == sorted(high - low for low, _, high in found)
    assert [expected for _, expected, _ in found] == sorted(expected for _, expected, _ in found)


@pytest.mark.parametrize(
    ("name", "card", "inside", "outside"),
    [
        # its expected scratch grows faster than its least need
        ("ltx-video-vae", "t4", 161, 169),
        # its least limit is smaller with four frames more
        ("wan2.1-t2v-1.3b", "rtx-3090", 81, 85),
        ("ltx-video-vae", "gtx-1080-ti", 33, 25),
    ],
)
def test_beyond_where_a_tape_ends_more_is_needed_of_more_and_less_of_less(
    name, card, inside, outside
) -> None:
    on = CATALOG.card(card).candidates[0]
    found = []
    for frames in (inside, outside):
        (job,) = make_jobs([name], CATALOG, {"frames": frames})
        pipeline = settled(of_torch(job.pipeline), job.settings, on.compute_capability)
        assert (pipeline.counted is None) == (frames == inside)
        if frames == inside:
            found.append(estimate_torch(pipeline, job.settings, on))
        else:
            found.append(carried_on(pipeline, job.settings, on))
    small, large = map(needs, found if inside < outside else reversed(found))
    assert small[0] <= large[0]
    assert small[2] <= large[2]


def test_what_is_carried_on_is_said_to_be_assumed_and_still_adds_up() -> None:
    found = beyond("flux1-vae", {"image": (4096, 4096)})
    (line,) = (line for line in found.lines if line.kind is LineKind.ACTIVATIONS)
    assert line.origin is Origin.ASSUMED
    assert "holds at image 2856x2856" in line.source
    for end in ("low_bytes", "expected_bytes", "high_bytes"):
        assert sum(getattr(one.band, end) for one in found.lines) == getattr(found.peak.device, end)


def test_lines_of_adapters_beside_it_are_not_widened_too() -> None:
    """Their results are activations as well, of a line of their own."""
    changed = {"prompt_tokens": 4096, "batch": 40, "quantization": "bnb-4bit", "lora": "rank16"}
    found = beyond("qwen3-8b", changed)
    assert sum(line.kind is LineKind.ACTIVATIONS for line in found.lines) > 1
    total = sum((line.band for line in found.lines[1:]), found.lines[0].band)
    assert total == found.peak.device


def test_on_the_way_from_the_defaults_all_sizes_go_together() -> None:
    tape = SimpleNamespace(
        domain={"n": (1, 8), "h%16": (0, 0), "n*h*w": (1, 4 << 20)},
        dims={"n": "batch", "w": "width", "h": "height"},
    )

    def outside(numbers):
        pixels = numbers["batch"] * numbers["width"] * numbers["height"]
        is_inside = numbers["batch"] <= 8 and numbers["height"] % 16 == 0 and pixels <= 4 << 20
        return None if is_inside else "outside"

    tape.outside = outside
    start = {"batch": 1, "image": (512, 512), "dtype": "bf16"}
    assert last_inside(tape, start, {**start, "batch": 40}) == {**start, "batch": 8}
    found = last_inside(tape, start, {**start, "image": (4096, 4096)})
    assert found["image"][0] == found["image"][1]
    assert 2032 <= found["image"][0] <= 2048
    assert found["image"][1] % 16 == 0
    off_the_grid = last_inside(tape, start, {**start, "image": (1000, 1000)})
    assert off_the_grid["image"] == (992, 992)
    assert last_inside(tape, {**start, "batch": 9}, {**start, "batch": 40}) is None


def test_a_tape_of_one_image_says_nothing_of_several() -> None:
    """Z-Image's transformer gives a list: one image was recorded, and no size is of a batch."""
    assert asked("z-image-turbo", {})[0].counted is None
    assert beyond("z-image-turbo", {"image": (2048, 2048)}) is not None
    assert beyond("z-image-turbo", {"batch": 4}) is None


def test_a_tape_without_the_code_is_not_carried_on() -> None:
    pipeline, settings = asked("flux1-vae", {"image": (4096, 4096)})
    assert pipeline.carried_tape == "flux1-vae"
    assert carried_on(replace(pipeline, carried_tape=None), settings, CARD) is None
    tape = open_tape(find_tape(replace(pipeline, tape="flux1-vae", counted=None)))
    assert set(tape.known_facts["dtype"]) == {"bf16"}
    with pytest.raises(AssertionError, match="the tape holds here"):
        beyond("flux1-vae", {"image": (512, 512)})


@pytest.mark.parametrize("name", ["sd15-inpaint", "flux1-schnell"])
def test_the_smallest_image_needs_no_more_than_one_that_was_recorded(name) -> None:
    """What is counted did: nothing smaller was found to fit, and so no largest at all."""
    pipeline, settings = asked(name, {})
    assert pipeline.counted is None
    usual = needs(estimate_torch(pipeline, settings, CARD))
    assert needs(beyond(name, {"image": (64, 64)}))[2] <= usual[2]
