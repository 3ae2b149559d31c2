"""Properties of the tapes that ship: what more work, narrower types and offload do to memory.

Each is checked at a few settings drawn at random, always the same ones.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from vramplan.budget.verdict import grade, offload_risk
from vramplan.catalog import load_catalog, profiles_dir
from vramplan.catalog.cards import assumed_card
from vramplan.engines.torch.estimate import estimate_torch
from vramplan.engines.torch.open import open_entry
from vramplan.engines.torch.pipeline import TorchPipeline
from vramplan.engines.torch.replayed import conditions_at, parts_at
from vramplan.engines.torch.tape.contents import Tape
from vramplan.engines.torch.tape.format import read_tape
from vramplan.engines.torch.tape.rehearsal import Rehearsal, rehearse_in_python
from vramplan.engines.torch.tape.rehearsed import Refused
from vramplan.errors import UsageError
from vramplan.model import Band, LineKind, SettingValue
from vramplan.settings import resolve_settings
from vramplan.units import MIB

FEW = settings(
    max_examples=6,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)

Chosen = dict[str, SettingValue]

CATALOG = load_catalog(())
FOLDERS = (profiles_dir(),)
#: those that recipes of ours record, each of its own kind; a hundred others are held where they are
#: made (`tools`' proofs) and, a family's largest and smallest, in tests of their own
NAMES = [
    *("denoising-ae", "llava-1.5-7b-hf", "log-anomaly-ae", "sd15", "sd15-vae", "sdxl"),
    "vit-mae-base",
]
CAPABILITIES = ("6.1", "7.5", "8.6", "9.0")

#: what is drawn for a setting that a pipeline has; small, so that an example takes a moment
DRAWN: Mapping[str, st.SearchStrategy[SettingValue]] = {
    "image": st.tuples(st.integers(8, 96), st.integers(8, 96)).map(lambda s: (s[0] * 8, s[1] * 8)),
    "batch": st.integers(1, 5),
    "dtype": st.sampled_from(["fp16", "bf16", "fp32"]),
    "steps": st.integers(1, 20),
    "guidance": st.sampled_from([1.0, 7.5]),
    "attention": st.sampled_from(["sdpa", "math"]),
    "offload": st.sampled_from(["none", "model", "sequential"]),
    "vae_tiling": st.sampled_from(["off", "on"]),
    "vae_slicing": st.sampled_from(["off", "on"]),
    "safety_checker": st.sampled_from(["off", "on"]),
    "expandable_segments": st.sampled_from(["off", "off", "on"]),
    "prompt_tokens": st.integers(1, 300),
    "new_tokens": st.integers(2, 6),
}

#: settings of which more is never less work, with what is added to them
MORE = {"batch": 1, "steps": 3, "prompt_tokens": 40, "new_tokens": 2, "image": 64}


def pipeline_of(name: str) -> TorchPipeline:
    return open_entry(CATALOG.pipeline(name), FOLDERS)


@cache
def tape_of(name: str) -> Tape:
    return read_tape(profiles_dir() / "tapes" / f"{pipeline_of(name).tape}.json")


def chosen(
    data: st.DataObject, name: str, **fixed: SettingValue
) -> tuple[TorchPipeline, Chosen, str]:
    """Draw settings that the pipeline has and takes, and an architecture."""
    pipeline = pipeline_of(name)
    drawn = {
        key: data.draw(values, key) for key, values in DRAWN.items() if key in pipeline.defaults
    }
    modes = pipeline.constraints["mode"].choices if "mode" in pipeline.constraints else ()
    if modes:
        drawn["mode"] = data.draw(st.sampled_from(modes), "mode")
    capability = data.draw(st.sampled_from(CAPABILITIES), "capability")
    return pipeline, taken(pipeline, {**drawn, **fixed}), capability


def taken(pipeline: TorchPipeline, drawn: Chosen) -> Chosen:
    try:
        return dict(resolve_settings(pipeline, drawn))
    except UsageError:
        assume(False)
        raise


def run(pipeline: TorchPipeline, found: Chosen, capability: str) -> Rehearsal:
    tape = tape_of(pipeline.name)
    return rehearse_in_python(
        tape,
        conditions_at(pipeline, found, capability, tape),
        expandable_segments=found.get("expandable_segments") == "on",
    )


def requested_peak(rehearsal: Rehearsal) -> int:
    """Return the most that live tensors asked for before any rounding (torch: requested_bytes)."""
    live = peak = 0
    sizes: list[int] = []
    for request in rehearsal.journal.requests:
        if request >= 0:
            sizes.append(request)
            live += request
            peak = max(peak, live)
        elif -1 - request < len(sizes):  # not the request to empty the cache
            live -= sizes[-1 - request]
    return peak


def larger(pipeline: TorchPipeline, found: Chosen, key: str) -> Chosen:
    value = found[key]
    more = (value[0] + MORE[key], value[1]) if isinstance(value, tuple) else value + MORE[key]  # type: ignore[operator]  # whole numbers, by their keys
    return taken(pipeline, {**found, key: more})


@pytest.mark.parametrize("name", NAMES)
@given(data=st.data())
@FEW
def test_more_work_never_needs_less(name: str, data: st.DataObject) -> None:
    """What tensors ask for is exact. What they get is not: a block up to 1 MiB larger than asked
    for is not split, and a cache cut at other places fragments less by chance, so that the least
    limit of a larger image can be some per cent lower (8 % is the most that was seen)."""
    pipeline, found, capability = chosen(data, name)
    key = data.draw(st.sampled_from([key for key in MORE if key in found]), "more")
    less, more = (
        run(pipeline, settings_, capability) for settings_ in (found, larger(pipeline, found, key))
    )
    assert requested_peak(less) <= requested_peak(more)
    slack = max(2 * MIB, less.trace.allocated_peak_bytes // 100)
    assert less.trace.allocated_peak_bytes <= more.trace.allocated_peak_bytes + slack


@pytest.mark.parametrize("name", NAMES)
@given(data=st.data())
@FEW
def test_a_peak_holds_what_is_resident_and_lies_below_what_is_reserved(
    name: str, data: st.DataObject
) -> None:
    pipeline, found, capability = chosen(data, name)
    rehearsal = run(pipeline, found, capability)
    for mark in rehearsal.trace.marks:
        assert sum(size for _, size in mark.weights) <= mark.allocated_peak_bytes
        assert mark.allocated_bytes <= mark.allocated_peak_bytes <= mark.reserved_peak_bytes
        assert mark.reserved_bytes <= mark.reserved_peak_bytes
    assert requested_peak(rehearsal) <= rehearsal.trace.allocated_peak_bytes


@pytest.mark.parametrize("name", NAMES)
@given(data=st.data())
@FEW
def test_a_narrower_dtype_never_raises_weights(name: str, data: st.DataObject) -> None:
    pipeline, found, capability = chosen(data, name)
    tape = tape_of(name)

    def weights(dtype: str) -> dict[str, int]:
        conditions = conditions_at(pipeline, {**found, "dtype": dtype}, capability, tape)
        return {part.name: part.weights_bytes for part in parts_at(tape, conditions)}

    wide, narrow = weights("fp32"), weights("fp16")
    assert narrow.keys() == wide.keys()
    assert all(size <= wide[part] <= 2 * size for part, size in narrow.items())
    assert weights("bf16") == narrow


@pytest.mark.parametrize("name", [n for n in NAMES if "offload" in CATALOG.pipeline(n).defaults])
@given(data=st.data())
@FEW
def test_offloading_never_raises_the_peak_of_live_memory(name: str, data: st.DataObject) -> None:
    """The least limit it may raise: model offload empties the cache whenever a component comes, and
    the next small tensors then cut the largest blocks (SD 1.5, image to image without SDPA)."""
    pipeline, found, capability = chosen(data, name)
    peaks = [
        run(pipeline, {**found, "offload": offload}, capability).trace.allocated_peak_bytes
        for offload in ("sequential", "model", "none")
    ]
    assert peaks == sorted(peaks)


@pytest.mark.parametrize("name", NAMES)
@given(data=st.data())
@FEW
def test_a_run_completes_from_its_need_on_and_its_terms_add_up(
    name: str, data: st.DataObject
) -> None:
    pipeline, found, capability = chosen(data, name, expandable_segments="off")
    budget = estimate_torch(pipeline, found, assumed_card(capability))
    need, device = budget.need.band, budget.peak.device
    assert need.low_bytes <= need.expected_bytes <= need.high_bytes
    total = sum((line.band for line in budget.lines[1:]), budget.lines[0].band)
    assert total == device
    assert budget.peak.allocated_bytes <= budget.peak.reserved_bytes <= device.expected_bytes
    context = budget.lines[-1].band
    assert budget.lines[-1].kind is LineKind.CUDA_CONTEXT
    least = need.expected_bytes - context.expected_bytes
    assert least <= budget.peak.reserved_bytes
    rehearsal = run(pipeline, found, capability)
    # scratch by a plan that is refused takes less: under its least limit a run allocates less too
    assert rehearsal.failure(budget.peak.allocated_bytes - 1) is not None
    assert rehearsal.failure(least - 1, refused=Refused.NEXT_PLAN) is not None
    for part in range(8):
        limit_bytes = least + (budget.peak.reserved_bytes - least) * part // 7
        assert rehearsal.failure(limit_bytes, refused=Refused.NEXT_PLAN) is None


BANDS = st.lists(st.integers(0, 1 << 40), min_size=3, max_size=3).map(
    lambda sizes: Band(low_bytes=min(sizes), expected_bytes=sorted(sizes)[1], high_bytes=max(sizes))
)


@given(BANDS, st.integers(0, 1 << 41), st.integers(0, 1 << 41), st.booleans())
def test_more_capacity_is_never_a_worse_verdict(
    need: Band, budget: int, more: int, spills: bool
) -> None:
    order = ["fits", "tight", "offload", "oom"]
    before = order.index(grade(need, budget, spills=spills).value)
    after = order.index(grade(need, budget + more, spills=spills).value)
    assert after <= before
    assert offload_risk(need, budget + more) <= offload_risk(need, budget)


@given(BANDS, st.integers(0, 1 << 41), st.integers(0, 1 << 40))
def test_a_larger_need_is_never_a_better_verdict(need: Band, budget: int, more: int) -> None:
    raised = need + Band.exactly(more)
    kinds = [grade(band, budget, spills=False) for band in (need, raised)]
    order = ["fits", "tight", "offload", "oom"]
    assert order.index(kinds[0].value) <= order.index(kinds[1].value)
    assert offload_risk(need, budget) <= offload_risk(raised, budget)


def test_every_pipeline_that_a_recipe_records_is_looked_at() -> None:
    assert all(
        (profiles_dir() / "tapes" / f"{pipeline_of(name).tape}.json").is_file() for name in NAMES
    )
    with_modes = [n for n, p in CATALOG.pipelines.items() if p.defaults.get("mode") == "infer"]
    assert set(with_modes) <= set(NAMES)
