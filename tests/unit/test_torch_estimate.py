"""Budgets of torch pipelines: bands of replays that cross, and what people measured elsewhere."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from itertools import pairwise

import pytest

from vramplan.ask.judge import judge
from vramplan.ask.library import open_target
from vramplan.ask.targets import make_jobs
from vramplan.catalog import load_catalog
from vramplan.engines.door import engine_of
from vramplan.engines.torch import rehearsals, shipped_results
from vramplan.engines.torch.allocator_slack import with_chance
from vramplan.engines.torch.convolution_workspace import OthersAt, convolution_scratch
from vramplan.engines.torch.estimate import replayed
from vramplan.engines.torch.pipeline import of_torch
from vramplan.engines.torch.replayed import result_key
from vramplan.engines.torch.screening import screen
from vramplan.engines.torch.tape_files import find_tape
from vramplan.model import Band, Estimate, LineKind, Origin, SettingValue, VerdictKind
from vramplan.units import MIB

CATALOG = load_catalog()
#: what torch counts as allocated: all but what it keeps unused, and the context
_ALLOCATED = (
    LineKind.WEIGHTS, LineKind.ACTIVATIONS, LineKind.WORKSPACE,
)  # fmt: skip


def estimate(name: str, card: str, **settings: SettingValue) -> Estimate:
    (job,) = make_jobs([name], CATALOG, settings)
    return engine_of(job.pipeline).estimate(job, CATALOG.card(card).candidates[0])


def allocated_mib(found: Estimate) -> tuple[float, float, float]:
    """Return low, expected and high of what torch would count as allocated at the peak."""
    bands = [line.band for line in found.lines if line.kind in _ALLOCATED]
    total = sum(bands[1:], bands[0])
    return total.low_bytes / MIB, total.expected_bytes / MIB, total.high_bytes / MIB


@cache
def need_mib(side: int) -> tuple[int, int, int]:
    band = estimate("sd15", "rtx-3060-12gb", offload="model", image=(side, side)).need.band
    return band.low_bytes // MIB, band.expected_bytes // MIB, band.high_bytes // MIB


# ------------------------------------------------------------------- replays that cross
def test_more_scratch_may_mean_less_live_memory_and_the_band_is_in_order() -> None:
    """Without scratch SD 1.5 has 3 MiB more live there than with it: blocks are cut elsewhere."""
    settings: dict[str, SettingValue] = {"offload": "model", "image": (896, 896)}
    (job,) = make_jobs(["sd15"], CATALOG, settings)
    pipeline = of_torch(job.pipeline)
    result = replayed(pipeline, job.settings, "8.6", find_tape(pipeline))
    assert result.low.allocated_peak_bytes > result.expected.allocated_peak_bytes
    found = estimate("sd15", "rtx-3060-12gb", **settings)
    assert allocated_mib(found)[1] * MIB == found.peak.allocated_bytes
    lines = [line.band for line in found.lines]
    assert sum(lines[1:], lines[0]) == found.peak.device


def test_bands_hold_what_a_smaller_or_larger_image_needs_under_model_offload() -> None:
    """The need of a larger image can be a segment lower; no band may exclude its neighbours'."""
    sides = (192, 256, 320, 384, 448, 456, 472, 480, 568, 576, 592, 608)
    needs = [need_mib(side) for side in sides]
    assert any(later[1] < one[1] for one, later in pairwise(needs))
    for place, (low, expected, _) in enumerate(needs):
        for _, larger, high in needs[place + 1 :]:
            assert low <= larger
            assert expected <= high


def test_a_run_without_scratch_has_no_band_of_chance() -> None:
    """Replays that are all the same leave nothing to chance."""
    found = estimate("log-anomaly-ae", "rtx-3060-12gb")
    assert found.need.band.high_bytes - found.need.band.low_bytes == (
        sum(
            line.band.high_bytes - line.band.low_bytes
            for line in found.lines
            if line.kind is LineKind.CUDA_CONTEXT
        )
    )


# ------------------------------------------------------------------- fp16 on Pascal
#: a public fp16 benchmark on two Pascal cards: SDXL and SDXL Turbo, 512x512, model offload
@pytest.mark.parametrize(
    ("settings", "measured_mib"),
    [({"steps": 30}, 5472.6), ({"steps": 4, "guidance": 0.0}, 5452.2)],
)
def test_half_precision_convolutions_on_pascal_are_inside_the_band(
    settings: dict[str, SettingValue], measured_mib: float
) -> None:
    found = estimate("sdxl", "p100", image=(512, 512), offload="model", **settings)
    low, _, high = allocated_mib(found)
    assert low < measured_mib <= high
    (line,) = (one for one in found.lines if one.name == "convolution workspace")
    assert line.origin is Origin.ASSUMED
    assert "6.0" in line.source


@pytest.mark.parametrize(
    ("offload", "guidance", "measured_mib"),
    [("none", 5.0, 7663.1), ("sequential", 5.0, 777.3), ("none", 0.0, 7663.2),
     ("sequential", 0.0, 776.6)],
)  # fmt: skip
def test_single_precision_convolutions_on_pascal_stay_right(
    offload: str, guidance: float, measured_mib: float
) -> None:
    found = estimate("sdxl", "p100", image=(512, 512), offload=offload, guidance=guidance)
    assert found.peak.allocated_bytes / MIB == pytest.approx(measured_mib, rel=0.001)


def test_the_most_that_a_convolution_takes_on_pascal_is_cudnns_own_answer() -> None:
    """256 to 128 channels at 512 by 512 pixels, kernel 3: asked of cuDNN 9.10 without a device."""
    x, y, f = 256 * 512 * 512 * 2, 128 * 512 * 512 * 2, 256 * 128 * 9 * 2
    high = convolution_scratch("6.0", 2).high("conv", (x, y, f))
    assert high == pytest.approx(407_110_160, rel=1e-4)
    assert high >= 2 * (x + y + f)
    assert convolution_scratch("6.0", 4).high("conv", (x, y, f)) == x + y + f


def test_a_component_that_is_cast_up_takes_the_scratch_of_its_own_width() -> None:
    """SDXL's VAE runs in fp32 in a pipeline of fp16: its convolutions are fp32's."""
    found = estimate("sdxl", "rtx-3060-12gb")
    (line,) = (one for one in found.lines if one.name == "convolution workspace")
    assert found.peak.component == "vae.decoder"
    assert " for fp32 on compute capability 8.6" in line.source
    assert line.origin is Origin.WITNESSED


def scratch_origin(name: str, card: str, **settings: SettingValue) -> Origin:
    lines = estimate(name, card, **settings).lines
    (line,) = (one for one in lines if one.name == "convolution workspace")
    is_said = line.source.startswith("assumed where a layer is of another size than was asked")
    assert is_said is (line.origin is Origin.ASSUMED)
    return line.origin


def test_scratch_is_witnessed_where_cudnn_was_asked_and_assumed_where_it_was_not() -> None:
    asked, other = (512, 512), (520, 536)
    assert scratch_origin("sd15-vae", "rtx-4090", image=asked) is Origin.WITNESSED
    assert scratch_origin("sd15-vae", "rtx-4090", image=other) is Origin.ASSUMED
    # where the result is one that was kept, it says so too
    assert scratch_origin("sd15-vae", "rtx-4090", image=other) is Origin.ASSUMED
    shipped = scratch_origin("sd15-vae", "rtx-4090"), scratch_origin("qwen-image", "rtx-4090")
    assert shipped == (Origin.WITNESSED, Origin.ASSUMED)


def test_a_layer_that_cannot_decide_the_peak_leaves_scratch_witnessed(monkeypatch) -> None:
    """A UNet's first layer works beside far less than the decoder does."""
    asked = OthersAt.plans
    seen: list[str] = []

    def but_first(model, kind: str, operands: tuple[int, ...]) -> tuple[int, ...]:
        if kind == "conv 4>320 3x3 p1":
            seen.append(kind)
            return (sum(operands[:3]) if model.is_most else 0,)
        return asked(model, kind, operands)

    monkeypatch.setattr(OthersAt, "plans", but_first)
    rehearsals.forget()
    shipped_results.forget()
    assert scratch_origin("sd15", "rtx-4090", image=(768, 768), steps=9) is Origin.WITNESSED
    assert seen


# ------------------------------------------------------------------- a VAE that is not cast
def test_a_vae_that_is_not_cast_decodes_in_half_precision() -> None:
    """SDXL with the fp16-fix VAE, RTX 3060: 7,758 MiB allocated in the decode, UNet and VAE there.

    vladmandic/sdnext#3416.
    """
    found = estimate("sdxl", "rtx-3060-12gb", vae_upcast="off")
    texts = (
        sum(c.weights_bytes for c in found.components if c.name.startswith("text_encoder")) / MIB
    )
    low, expected, high = (size - texts for size in allocated_mib(found))
    assert low < 7758 < high
    assert expected == pytest.approx(7758, rel=0.02)
    cast = estimate("sdxl", "rtx-3060-12gb")
    assert cast.peak.allocated_bytes > found.peak.allocated_bytes


@pytest.mark.parametrize("dtype", ["bf16", "fp32"])
def test_only_fp16_is_cast(dtype: str) -> None:
    on, off = (
        estimate("sdxl", "rtx-3090", dtype=dtype, vae_upcast=switch, image=(512, 512))
        for switch in ("on", "off")
    )
    assert on.need == off.need


# ------------------------------------------------------------------- where it stops
def test_the_phase_named_is_where_the_run_stops_first_on_that_card() -> None:
    (job,) = make_jobs(["sdxl"], CATALOG, {})
    places = {card: judge(job, CATALOG.card(card))[0] for card in ("gtx-1060-6gb", "rtx-2060-6gb")}
    most = estimate("sdxl", "rtx-3060-12gb").need
    assert (most.phase, most.component) == ("decode_image", "vae.decoder")
    for verdict in places.values():
        assert verdict.kind is VerdictKind.OOM
        assert verdict.peak_phase == "load"  # 6.6 GiB of weights
        assert verdict.reason.startswith(f"fails in load at {verdict.peak_component}")


def test_slack_may_be_a_segment_more_or_less_where_replays_differ() -> None:
    """20 MiB either way, and never less than none; equal replays are left as they are."""
    band = Band(low_bytes=30 * MIB, expected_bytes=40 * MIB, high_bytes=50 * MIB)
    assert with_chance(band) == Band(
        low_bytes=10 * MIB, expected_bytes=40 * MIB, high_bytes=70 * MIB
    )
    assert with_chance(replace(band, low_bytes=5 * MIB)).low_bytes == 0
    same = Band.exactly(40 * MIB)
    assert with_chance(same) == same


def test_a_run_that_completes_below_its_least_limit_is_tight_and_no_failure() -> None:
    """As torch does on a B200 that is not there: it completes with 1 % less, and not with 3 %."""
    (card,) = CATALOG.card("b200").candidates
    asked = {"mode": "train", "image": (704, 1024), "batch": 2, "steps": 3, "dtype": "fp32"}
    (job,) = make_jobs(["denoising-ae"], CATALOG, asked)
    engine = engine_of(job.pipeline)
    need = engine.estimate(job, card).need.band.expected_bytes
    for budget, kind in (
        (need, VerdictKind.TIGHT),
        (need - MIB, VerdictKind.OOM),  # success is not monotone
        (need * 99 // 100, VerdictKind.TIGHT),
        (need * 97 // 100, VerdictKind.OOM),
    ):
        found = engine.judge(job, card, budget)
        assert found.kind is kind
        assert engine.grader(job)(card, budget).kind is kind
        if budget < need and kind is VerdictKind.TIGHT:
            assert (
                "completes in 2,317 MiB as expected, but not with every amount above"
                in found.reason
            )


@pytest.mark.parametrize("expandable", ["off", "on"])
@pytest.mark.parametrize("settings", [{}, {"dtype": "fp32"}])
def test_what_is_screened_for_advice_is_what_is_judged(
    settings: dict[str, SettingValue], expandable: str
) -> None:
    """To the byte: a run completes with its expected need, and fits with the high end of it."""
    (card,) = CATALOG.card("rtx-3060-12gb").candidates
    (job,) = make_jobs(["sd15-vae"], CATALOG, {**settings, "expandable_segments": expandable})
    need = engine_of(job.pipeline).estimate(job, card).need.band
    pipeline = of_torch(job.pipeline)
    for less, holds in ((0, True), (1, False)):
        seen = screen(pipeline, job.settings, card, need.expected_bytes - less)
        assert seen.completes is holds
        assert not seen.fits
    assert screen(pipeline, job.settings, card, need.high_bytes).fits


# ------------------------------------------------------------------------------ training
@pytest.mark.parametrize(
    ("settings", "moments"),
    [({"mode": "infer"}, 0), ({"steps": 1}, 0), ({"steps": 2}, 2), ({"steps": 10}, 2)],
)
def test_adam_keeps_two_moments_for_each_parameter_once_it_has_stepped(settings, moments) -> None:
    found = estimate("vit-mae-base", "rtx-3060-12gb", **{"mode": "train", **settings})
    parameters_bytes = 4 * sum(part.parameters for part in found.components)
    assert found.bytes_of(LineKind.OPTIMIZER_STATE) == moments * parameters_bytes
    assert found.bytes_of(LineKind.GRADIENTS) == (parameters_bytes if moments else 0)


# ------------------------------------------------------------------------------ what is listed
def test_a_component_is_on_the_gpu_unless_offloading_moves_it() -> None:
    def devices(name: str, **settings: SettingValue) -> dict[str, str]:
        found = estimate(name, "rtx-3060-12gb", **settings)
        return {part.name: part.device for part in found.components}

    assert set(devices("sd15").values()) == {"gpu"}
    moved = devices("sd15", offload="model", safety_checker="on")
    assert moved["unet"] == moved["text_encoder"] == "split"
    assert moved["safety_checker"] == "gpu"  # diffusers leaves it there


def test_where_nothing_is_convolved_no_scratch_is_listed() -> None:
    names = [line.name for line in estimate("log-anomaly-ae", "rtx-3060-12gb").lines]
    assert "convolution workspace" not in names
    assert "cuBLAS workspace" in names


@pytest.mark.parametrize(("steps", "is_said"), [(2, True), (7, True), (8, False), (30, False)])
def test_that_few_steps_are_planned_as_eight_is_said(steps: int, *, is_said: bool) -> None:
    notes = estimate("sd15", "rtx-3060-12gb", steps=steps).notes
    assert any("are planned as 8" in note for note in notes) is is_said


def test_architectures_that_run_other_kernels_have_other_keys() -> None:
    """A diffusers pipeline's text encoder keeps SDPA, whatever its UNet was told."""
    pipeline = of_torch(open_target("sdxl").pipeline)
    settings = {**pipeline.defaults, "attention": "math"}
    hopper, blackwell = (
        result_key(find_tape(pipeline), pipeline, settings, capability)
        for capability in ("9.0", "12.0")
    )
    assert hopper != blackwell
