"""Where an entry's tapes have no code for what is asked: bounded by the nearest that they have."""

from __future__ import annotations

import pytest

from vramplan.ask.targets import make_jobs, open_catalog
from vramplan.budget.cuda_context import context_band
from vramplan.engines.torch import near_tape
from vramplan.engines.torch.estimate import estimate_torch, settled
from vramplan.engines.torch.facts import numbers_at
from vramplan.engines.torch.near_tape import nearest
from vramplan.engines.torch.pipeline import of_torch
from vramplan.engines.torch.tape.contents import Tape
from vramplan.model import LineKind, Origin
from vramplan.quick_dataclass import replace
from vramplan.recording_switch import switched_off

CATALOG = open_catalog()


def found(name, card, changed):
    """Return the estimate without a recording on the spot, as on a base install."""
    (job,) = make_jobs([name], CATALOG, changed)
    on = CATALOG.card(card).candidates[0]
    pipeline = settled(of_torch(job.pipeline), job.settings, on.compute_capability)
    with switched_off():
        return estimate_torch(pipeline, job.settings, on)


def band(name, card, changed):
    need = found(name, card, changed).need.band
    return need.low_bytes, need.expected_bytes, need.high_bytes


# ------------------------------------------------------------------------------ nearest settings
VIDEO = Tape(
    pipeline="a video",
    recorded_with={},
    dims={"n": "batch", "f": "frames", "h": "height", "w": "width"},
    least={},
    dtype_facts={},
    entry="main",
    components={},
    routines={},
    known_facts={},
    known_numbers=(),
    domain={
        "n": (1, 1),
        "f": (9, 49),
        "f%8": (1, 1),
        "h": (64, 512),
        "h%16": (0, 0),
        "h*f": (576, 12800),
    },
)
DEFAULTS = {"batch": 1, "frames": 25, "image": (256, 256), "dtype": "bf16"}


@pytest.mark.parametrize(
    ("asked", "smaller", "larger"),
    [
        ({"batch": 4}, {"batch": 1}, None),
        ({"frames": 30}, {"frames": 25}, {"frames": 33}),
        ({"frames": 81}, {"frames": 49}, None),
        ({"frames": 5}, None, {"frames": 9}),
        ({"image": (256, 250)}, {"image": (256, 240)}, {"image": (256, 256)}),
        ({"batch": 2, "frames": 5}, None, None),
    ],
)
def test_nearest_settings_are_no_larger_or_no_smaller_whatever_the_axis(
    asked, smaller, larger
) -> None:
    for wanted, is_larger in ((smaller, False), (larger, True)):
        near = nearest(VIDEO, DEFAULTS, {**DEFAULTS, **asked}, larger=is_larger)
        assert near == (None if wanted is None else {**DEFAULTS, **wanted})


def test_what_is_too_much_together_is_less_of_each() -> None:
    near = nearest(VIDEO, DEFAULTS, {**DEFAULTS, "image": (256, 512), "frames": 49})
    assert near is not None
    assert VIDEO.outside(numbers_at(near)) is None
    assert near["frames"] % 8 == 1
    assert DEFAULTS["frames"] <= near["frames"] < 49
    assert 256 <= near["image"][1] <= 512


# ------------------------------------------------------------------------------ other sizes
@pytest.mark.parametrize(
    ("name", "key", "values", "at"),
    [
        ("z-image", "batch", (1, 2, 4, 16), 1),
        ("svd-xt", "frames", (14, 25, 50), 25),
        ("pixart-sigma", "image", ((512, 512), (1024, 1024), (2048, 2048)), (1024, 1024)),
    ],
)
def test_a_setting_that_was_recorded_at_one_value_is_bounded_by_that_one(
    name, key, values, at
) -> None:
    bands = [band(name, "rtx-3090", {key: value}) for value in values]
    for lows in zip(*bands, strict=True):  # nor are the expected and the highest less for more
        assert list(lows) == sorted(lows)
    recorded = bands[values.index(at)]
    for value, (low, _, high) in zip(values, bands, strict=True):
        if value > at:
            assert low >= recorded[0]
            assert high > recorded[2]
        elif value < at:
            assert low < recorded[0]
            assert high <= recorded[2]


def test_what_is_bounded_so_is_assumed_and_still_adds_up() -> None:
    estimate = found("z-image", "rtx-3090", {"batch": 4})
    (line,) = (one for one in estimate.lines if one.kind is LineKind.ACTIVATIONS)
    assert line.origin is Origin.ASSUMED
    assert "holds at batch 1" in line.source
    for end in ("low_bytes", "expected_bytes", "high_bytes"):
        total = sum(getattr(one.band, end) for one in estimate.lines)
        assert total == getattr(estimate.peak.device, end)
    assert estimate.settings["batch"] == 4
    scratch = [one for one in estimate.lines if one.kind is LineKind.WORKSPACE and one.component]
    assert [one.origin for one in scratch] == [Origin.ASSUMED]


# ------------------------------------------------------------------------------ other kernels
def test_plain_attention_needs_no_less_than_a_fused_kernel_does(monkeypatch) -> None:
    """LTX-Video has both: without its plain one the fused one's is a floor below that."""
    (job,) = make_jobs(["ltx-video-0.9"], CATALOG, {})
    on = CATALOG.card("t4").candidates[0]
    pipeline = of_torch(job.pipeline)
    right = found("ltx-video-0.9", "t4", {}).need.band
    fused = found("ltx-video-0.9", "rtx-3090", {}).need.band
    lacks = near_tape.lacks_code
    monkeypatch.setattr(
        near_tape,
        "lacks_code",
        lambda *args, kernel=None: kernel is None or lacks(*args, kernel=kernel),
    )
    assert pipeline.counted is not None
    with switched_off():
        without = replace(pipeline, tape_within="ltx-video-0.9", carried_tape=None)
        blind = estimate_torch(replace(without, tape_within=None), job.settings, on)
        ours = estimate_torch(without, job.settings, on)
    need = ours.need.band
    assert blind.need.band.low_bytes < need.low_bytes <= right.low_bytes
    assert need.low_bytes > 0.9 * fused.low_bytes
    assert right.expected_bytes <= need.high_bytes
    context = context_band(on)
    ends = [
        getattr(need, end) - getattr(context, end)
        for end in ("low_bytes", "expected_bytes", "high_bytes")
    ]
    assert ends == sorted(ends)  # a grade takes the context off again
    (line,) = (one for one in ours.lines if one.kind is LineKind.ACTIVATIONS)
    assert "no less than by tape ltx-video-0.9 with flash attention" in line.source
    total = sum((one.band for one in ours.lines[1:]), ours.lines[0].band)
    assert total == ours.peak.device


def test_an_architecture_with_a_fused_kernel_has_no_floor_by_another() -> None:
    (job,) = make_jobs(["flux1-dev"], CATALOG, {})
    on = CATALOG.card("rtx-3090").candidates[0]
    with switched_off():
        counted = replace(of_torch(job.pipeline), tape_within=None)
        blind = estimate_torch(counted, job.settings, on)
        raised = near_tape.raised(blind, of_torch(job.pipeline), job.settings, on)
    assert raised == blind
