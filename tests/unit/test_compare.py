"""An estimate beside a run: residuals, rows, and the way to the figure that is shown."""

from __future__ import annotations

import importlib.util
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from vramplan.compare.comparison import compare_run
from vramplan.compare.pair import Pair, band_of
from vramplan.compare.pasted import refuse_what_is_not_there
from vramplan.compare.waterfall import Basis, Observed, draw_waterfall
from vramplan.compare.witness import LayersTold, Witness, WitnessRow
from vramplan.engine_buffer import EngineBuffer
from vramplan.errors import MeasurementError
from vramplan.measurement.run import Failure, FailureKind, Held
from vramplan.model import LANGUAGE_MODEL, Band, LineKind, buffer_bytes
from vramplan.report.comparison_html import render_comparison as render_html
from vramplan.report.comparison_markdown import render_comparison as render_markdown
from vramplan.report.comparison_table import render_comparison

_PATH = Path(__file__).parents[1] / "synthetic_runs.py"
_SPEC = importlib.util.spec_from_file_location("synthetic_runs", _PATH)
synthetic = sys.modules.setdefault("synthetic_runs", importlib.util.module_from_spec(_SPEC))
_SPEC.loader.exec_module(synthetic)

MIB = 1 << 20


@pytest.fixture(scope="module")
def planned():
    return synthetic.an_estimate()


# -- pairs --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("percent", "band"),
    [(0, 0), (2, 0), (-2.1, 1), (6, 1), (6.1, 2), (-10, 2), (12, 3), (14, 3), (-14.01, 4)],
)
def test_bands_are_at_2_6_10_and_14_percent(percent: float, band: int) -> None:
    assert band_of(percent) == band


def test_a_residual_is_measurement_less_estimate_in_percent_of_the_measurement() -> None:
    pair = Pair(estimate_bytes=90, measured_bytes=100)
    assert (pair.residual_bytes, pair.residual_percent, pair.band) == (10, 10.0, 2)


@pytest.mark.parametrize("pair", [(None, 5), (5, None), (5, 0)])
def test_without_both_sides_there_is_no_percentage(pair) -> None:
    assert Pair(estimate_bytes=pair[0], measured_bytes=pair[1]).residual_percent is None


# -- rows ---------------------------------------------------------------------------------------


def test_every_phase_and_component_has_estimate_and_measurement(planned) -> None:
    comparison = compare_run(planned, synthetic.a_run(planned, off=0.05))
    places = [(row.phase, row.component) for row in comparison.phases]
    assert places == list(dict.fromkeys((p.phase, p.component) for p in planned.timeline))
    for row in comparison.phases:
        assert row.allocated.residual_percent == pytest.approx(100 * 0.05 / 1.05, abs=0.1)
        assert row.process.measured_bytes == row.reserved.measured_bytes + synthetic.CONTEXT_BYTES
        assert (row.warm_reserved_bytes is None) == (row.phase == "load")
    assert comparison.peak_allocated.estimate_bytes == planned.peak.allocated_bytes
    assert comparison.worst_percent == pytest.approx(
        max(abs(p.residual_percent) for row in comparison.phases for p in row.pairs)
    )


def test_nvidia_smis_figure_is_of_the_end_of_the_phase_or_of_the_components_load(planned) -> None:
    run = synthetic.a_run(planned)
    ends = tuple(
        replace(one, smi_used_bytes=number * MIB, smi_process_bytes=None)
        for number, one in enumerate(run.phase_ends, 1)
    )
    rows = compare_run(planned, replace(run, phase_ends=ends)).phases
    found = {(row.phase, row.component): row.smi_bytes for row in rows}
    assert all(found.values())
    loads = [one.component for one in ends if one.turn == "load"]
    assert [found["load", name] for name in loads] == [n * MIB for n in range(1, len(loads) + 1)]
    phases = [one.phase for one in ends if one.turn == "cold"]
    for number, phase in enumerate(phases, len(loads) + 1):
        sizes = {size for place, size in found.items() if place[0] == phase}
        assert sizes == {number * MIB}
    assert {row.smi_process_bytes for row in rows} == {None}


def test_without_nvidia_smi_there_is_no_column_and_no_note_of_it(planned) -> None:
    asked = compare_run(planned, synthetic.a_run(planned))
    never = compare_run(planned, synthetic.a_run(planned, phase_ends=()))
    for render in (partial(render_comparison, colour=False, width=140), render_markdown):
        assert "nvidia-smi" in render(asked)
        assert "nvidia-smi" not in render(never)
    assert ">nvidia-smi<" in render_html(asked)
    assert ">nvidia-smi<" not in render_html(never)


def test_the_parts_of_a_component_are_counted_together(planned) -> None:
    rows = {row.name: row for row in compare_run(planned, synthetic.a_run(planned)).components}
    assert rows["vae"].weights.estimate_bytes == 2 * 83_653_863
    assert rows["vae"].weights.residual_bytes == 512


def test_a_run_that_ended_early_has_the_rows_it_came_to(planned) -> None:
    whole = synthetic.a_run(planned)
    failure = Failure(
        kind=FailureKind.OOM, phase="denoise", component="unet", message="", asked_bytes=MIB
    )
    cut = replace(whole, stretches=whole.stretches[:3], held=None, failure=failure)
    comparison = compare_run(planned, cut)
    assert comparison.waterfall is None
    reached = [row for row in comparison.phases if row.allocated.measured_bytes is not None]
    assert len(reached) == 3
    drawn = render_comparison(comparison, colour=False, width=100)
    assert "✗ out of memory in denoise · unet, asking for 1 MiB" in drawn


def test_an_engines_buffers_are_beside_the_estimates() -> None:
    planned = synthetic.an_estimate("llava:7b", gpu_layers="all")
    weights = buffer_bytes(planned.buffers, LineKind.WEIGHTS, component=LANGUAGE_MODEL)
    told = (
        EngineBuffer(device="CUDA0", name="model", size_bytes=weights),
        EngineBuffer(device="CPU_Mapped", name="model", size_bytes=70 * MIB),
        EngineBuffer(device="CUDA0", name="KV", size_bytes=512 * MIB),
    )
    run = synthetic.a_run(planned, buffers=told, stretches=(), components=(), held=None)
    rows = {(row.name, row.is_on_host): row.size for row in compare_run(planned, run).buffers}
    assert rows["model", False].residual_bytes == 0
    assert rows["KV", False].estimate_bytes == planned.bytes_of(LineKind.KV_CACHE)
    assert rows["model", True].measured_bytes == 70 * MIB
    assert rows["compute", False].measured_bytes is None


def test_what_an_engine_keeps_in_host_memory_has_an_estimate_of_its_own() -> None:
    planned = synthetic.an_estimate("llava:7b", gpu_layers=6)
    told = (
        EngineBuffer(device="CPU", name="KV", size_bytes=432 * MIB),
        EngineBuffer(device="CPU", name="projector compute", size_bytes=40 * MIB),
    )
    run = synthetic.a_run(planned, buffers=told, stretches=(), components=(), held=None)
    rows = {(row.name, row.is_on_host): row.size for row in compare_run(planned, run).buffers}
    assert rows["KV", True].residual_bytes == 0
    computes = [rows[name, True].estimate_bytes for name in ("compute", "projector compute")]
    assert sum(computes) == buffer_bytes(
        planned.buffers, LineKind.COMPUTE_BUFFER, LineKind.PROJECTOR_COMPUTE, on_host=True
    )
    assert all(computes)


# -- the waterfall ------------------------------------------------------------------------------


def test_the_steps_lead_to_what_is_shown_and_leave_nothing(planned) -> None:
    run = synthetic.a_run(planned, off=0.02)
    waterfall = compare_run(planned, run).waterfall
    assert waterfall.shown_bytes == run.held.device.used_bytes
    assert waterfall.unaccounted_bytes == 0
    steps = {step.name: step for step in waterfall.steps}
    assert steps["CUDA context"].bytes == synthetic.CONTEXT_BYTES
    assert steps["other processes"].bytes == synthetic.OTHER_BYTES
    assert steps["weights"].basis is Basis.MEASURED
    assert steps["activations"].basis is Basis.DIFFERENCE
    assert steps["workspace"].basis is Basis.ESTIMATE
    assert "system reserved" not in steps, "version 2 of NVML's used does not have it inside"


def test_what_no_process_holds_is_unaccounted(planned) -> None:
    run = synthetic.a_run(planned)
    device = replace(run.held.device, used_bytes=run.held.device.used_bytes + 50 * MIB)
    held = replace(run.held, device=device)
    waterfall = compare_run(planned, replace(run, held=held)).waterfall
    assert waterfall.unaccounted_bytes == 50 * MIB


def test_a_figure_that_has_the_systems_share_inside_is_told_from_one_that_has_not(planned) -> None:
    run = synthetic.a_run(planned)
    old = run.held.device.used_bytes + synthetic.RESERVED_BYTES
    waterfall = compare_run(planned, run, smi_used_bytes=old).waterfall
    steps = {step.name: step.bytes for step in waterfall.steps}
    assert waterfall.shown_by == "nvidia-smi"
    assert steps["system reserved"] == synthetic.RESERVED_BYTES
    assert waterfall.unaccounted_bytes == 0


def test_without_the_process_the_context_is_how_the_card_rose(planned) -> None:
    run = synthetic.a_run(planned)
    context = tuple(  # torch may have reserved something by then, which is no context
        replace(
            step,
            process_used_bytes=None,
            reserved_bytes=step.reserved_bytes + 8 * MIB,
            device_used_bytes=step.device_used_bytes + 8 * MIB,
        )
        for step in run.context
    )
    device = replace(run.held.device, processes=None)
    held = Held(device=device, torch=run.held.torch, process_used_bytes=None, smi=None)
    waterfall = compare_run(planned, replace(run, context=context, held=held)).waterfall
    steps = {step.name: step for step in waterfall.steps}
    assert steps["CUDA context"].bytes == synthetic.CONTEXT_BYTES
    assert steps["CUDA context"].basis is Basis.MEASURED
    assert steps["other processes"].bytes == synthetic.OTHER_BYTES
    assert waterfall.unaccounted_bytes == 0


def test_from_outside_the_estimate_stands_in_for_what_cannot_be_seen(planned) -> None:
    shown = planned.peak.device.expected_bytes + 1000 * MIB
    seen = Observed(shown_bytes=shown, shown_by="nvidia-smi", others_bytes=900 * MIB)
    waterfall = draw_waterfall(planned, seen)
    assert waterfall.unaccounted_bytes == 100 * MIB
    bases = {step.name: step.basis for step in waterfall.steps}
    assert bases.pop("other processes") is Basis.MEASURED
    assert set(bases.values()) == {Basis.ESTIMATE}


def test_sizes_on_the_card_add_up_to_the_estimate_where_nothing_is_measured(planned) -> None:
    seen = Observed(shown_bytes=0, shown_by="NVML")
    waterfall = draw_waterfall(planned, seen)
    assert waterfall.accounted_bytes == planned.peak.device.expected_bytes


# -- how it looks -------------------------------------------------------------------------------


@pytest.mark.parametrize("width", [80, 120])
def test_a_comparison_keeps_to_its_width(planned, width: int) -> None:
    drawn = render_comparison(
        compare_run(planned, synthetic.a_run(planned)), colour=False, width=width
    )
    assert max(map(len, drawn.splitlines())) <= width
    assert "made up for an example: no GPU said this" in drawn
    assert "unaccounted" in drawn


def test_a_comparison_looks_as_it_did(planned, golden) -> None:
    comparison = compare_run(planned, synthetic.a_run(planned, off=0.03))
    golden("compare_120.txt", render_comparison(comparison, colour=False, width=120))
    golden("compare.md", render_markdown(comparison))


def test_the_page_needs_nothing_from_elsewhere(planned) -> None:
    run = replace(synthetic.a_run(planned), notes=("<script>alert(1)</script>",))
    page = render_html(compare_run(planned, run))
    assert "<script" not in page
    assert "<svg" in page
    assert "http://" not in page.replace("http://www.w3.org/2000/svg", "")


def test_live_memory_is_what_weights_caches_states_and_scratch_leave(planned) -> None:
    """Each of the four is taken off once: a state of 3 that is forgotten shows here."""
    sizes = {
        LineKind.WEIGHTS: 1000,
        LineKind.KV_CACHE: 200,
        LineKind.RECURRENT_STATE: 30,
        LineKind.WORKSPACE: 4,
        LineKind.ACTIVATIONS: 70,
    }
    line = planned.lines[0]
    lines = tuple(
        replace(line, kind=kind, band=Band.exactly(size * MIB)) for kind, size in sizes.items()
    )
    seen = Observed(
        shown_bytes=2000 * MIB,
        shown_by="NVML",
        weights_bytes=1000 * MIB,
        allocated_peak_bytes=1500 * MIB,
        reserved_bytes=1600 * MIB,
        process_bytes=1900 * MIB,
    )
    steps = {
        one.kind: one.bytes for one in draw_waterfall(replace(planned, lines=lines), seen).steps
    }
    assert steps[LineKind.RECURRENT_STATE] == 30 * MIB
    assert steps[LineKind.ACTIVATIONS] == (1500 - 1000 - 200 - 30 - 4) * MIB
    assert steps[LineKind.ALLOCATOR_SLACK] == 100 * MIB
    assert steps[LineKind.CUDA_CONTEXT] == 300 * MIB


@pytest.mark.parametrize(
    ("shown_mib", "others_mib", "process_mib", "is_there"),
    [
        (1000, None, None, True),
        (999, None, None, False),
        (1500, 500, None, True),
        (1500, 501, None, False),
        (1500, 501, 1000, True),  # what the process holds is said
        (5000, 0, 999, False),
    ],
)
def test_what_is_held_is_what_is_shown_less_what_others_hold(
    planned, shown_mib: int, others_mib: int | None, process_mib: int | None, *, is_there: bool
) -> None:
    weights = replace(planned.lines[0], kind=LineKind.WEIGHTS, band=Band.exactly(1000 * MIB))
    scratch = replace(weights, kind=LineKind.ACTIVATIONS)
    seen = Observed(
        shown_bytes=shown_mib * MIB,
        shown_by="nvidia-smi",
        others_bytes=None if others_mib is None else others_mib * MIB,
        process_bytes=None if process_mib is None else process_mib * MIB,
    )
    estimate = replace(planned, lines=(weights, scratch))
    if is_there:
        refuse_what_is_not_there(estimate, seen)
    else:
        with pytest.raises(MeasurementError, match="less than the weights"):
            refuse_what_is_not_there(estimate, seen)


@pytest.mark.parametrize(
    ("ours_kib", "engines_kib", "differ"),
    [
        (0, 1024, False),  # 1 MiB is what an engine rounds away
        (0, 1025, True),
        (1024, 0, False),
        (200 << 20, (200 << 20) + 1024, False),
        (199_000, 200_000, False),
        (198_975, 200_000, True),
        (1_990_000, 2_000_000, False),  # and half a percent of what it says
        (1_989_999, 2_000_000, True),
    ],
)
def test_a_mib_or_half_a_percent_is_no_contradiction(
    ours_kib: int, engines_kib: int, *, differ: bool
) -> None:
    size = Pair(estimate_bytes=ours_kib << 10, measured_bytes=engines_kib << 10)
    told = Witness(
        pipeline="x",
        engine="llama.cpp",
        rows=(WitnessRow(name="KV cache", size=size),),
        is_known=True,
    )
    assert told.contradictions == (("KV cache",) if differ else ())
    assert replace(told, is_known=False).contradictions == ()


def test_layers_that_the_engine_places_otherwise_are_named_first() -> None:
    size = Pair(estimate_bytes=0, measured_bytes=9 * MIB)
    row = WitnessRow(name="KV cache", size=size)
    layers = LayersTold(ours=3, engine=4, total=5)
    told = Witness(pipeline="x", engine="llama.cpp", rows=(row,), is_known=True, layers=layers)
    assert told.contradictions == ("layers on the GPU", "KV cache")
    same = replace(told, layers=replace(layers, ours=4))
    assert same.contradictions == ("KV cache",)


def test_weights_that_move_are_not_measured_by_what_loading_took(planned) -> None:
    run = synthetic.a_run(planned)
    moved = replace(run, settings={**run.settings, "offload": "model"})
    untold = replace(run, components=(replace(run.components[0], allocated_bytes=None),))
    for one, basis in ((run, Basis.MEASURED), (moved, Basis.ESTIMATE), (untold, Basis.ESTIMATE),
                       (replace(run, components=()), Basis.ESTIMATE)):  # fmt: skip
        steps = {step.name: step for step in compare_run(planned, one).waterfall.steps}
        assert steps["weights"].basis is basis


def test_a_place_of_which_nothing_is_planned_has_nothing(planned) -> None:
    """A run that begins with everything on the host holds nothing while it loads."""
    first = replace(planned.timeline[0], allocated_bytes=0, reserved_bytes=0)
    place = (first.phase, first.component)
    later = [point for point in planned.timeline if (point.phase, point.component) != place]
    found = replace(planned, timeline=(first, *later))
    rows = compare_run(found, synthetic.a_run(planned)).phases
    (row,) = (one for one in rows if (one.phase, one.component) == place)
    assert (row.allocated.estimate_bytes, row.reserved.estimate_bytes) == (0, 0)
