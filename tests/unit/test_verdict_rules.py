"""The decisions: grades, risk, budgets and what is said on cards that are too small."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vramplan.ask.judge import judge, judge_together
from vramplan.ask.targets import make_jobs
from vramplan.budget.advice import is_useful
from vramplan.budget.cuda_context import context_band
from vramplan.budget.verdict import find_budget, grade, offload_risk
from vramplan.catalog import CardChoice, load_catalog
from vramplan.errors import UsageError
from vramplan.model import Band, Card, LineKind, Verdict, VerdictKind
from vramplan.units import GIB, MIB, parse_size

CATALOG = load_catalog()
NEED = Band(low_bytes=3 * GIB, expected_bytes=4 * GIB, high_bytes=5 * GIB)


def _card(total_bytes: int, *, reserved_bytes: int = 0, free_bytes: int | None = None) -> Card:
    return Card(
        name="a-card",
        title="a card",
        kind="assumed",
        class_gib=total_bytes // GIB,
        total_bytes=total_bytes,
        reserved_bytes=reserved_bytes,
        compute_capability="8.6",
        bandwidth_bytes_per_s=1,
        source="made for a test",
        free_bytes=free_bytes,
    )


def _judge(name: str, card: Card | str, **changes: object) -> Verdict:
    choice = (
        CATALOG.card(card)
        if isinstance(card, str)
        else CardChoice(label=card.name, title=card.title, candidates=(card,))
    )
    (job,) = make_jobs([name], CATALOG, changes)
    return judge(job, choice)[0]


@pytest.mark.parametrize(
    ("budget_gib", "spills", "expected"),
    [(5, False, "fits"), (4, False, "tight"), (3.9, False, "oom"), (3.9, True, "offload")],
)
def test_grades(budget_gib: float, *, spills: bool, expected: str) -> None:
    assert grade(NEED, int(budget_gib * GIB), spills=spills) == expected


@pytest.mark.parametrize(("budget_gib", "risk"), [(5, 0.05), (4, 0.5), (3, 0.95)])
def test_risk_at_the_points_that_define_the_band(budget_gib: int, risk: float) -> None:
    assert offload_risk(NEED, budget_gib * GIB) == pytest.approx(risk, abs=1e-9)


@given(st.integers(0, 8 * GIB), st.integers(0, 8 * GIB))
def test_risk_falls_with_the_budget(one: int, other: int) -> None:
    low, high = sorted((one, other))
    assert 0 <= offload_risk(NEED, high) <= offload_risk(NEED, low) <= 1


def test_risk_of_an_exact_need_is_yes_or_no() -> None:
    exact = Band.exactly(GIB)
    assert (offload_risk(exact, GIB), offload_risk(exact, GIB - 1)) == (0.0, 1.0)


def test_budget_is_capacity_less_reserved_others_and_margin() -> None:
    card = _card(8 * GIB, reserved_bytes=256 * MIB)
    assert find_budget(card, 512 * MIB, GIB) == 8 * GIB - 256 * MIB - 512 * MIB - GIB


def test_others_on_this_machine_are_what_nvml_says() -> None:
    card = _card(8 * GIB, reserved_bytes=256 * MIB, free_bytes=5 * GIB)
    assert find_budget(card, 0, None) == 5 * GIB
    assert find_budget(card, 0, 0) == 8 * GIB - 256 * MIB


def test_a_card_smaller_than_the_context_is_refused() -> None:
    with pytest.raises(UsageError, match="CUDA context"):
        find_budget(_card(80 * MIB), 0, None)


def test_a_card_with_just_the_context_is_a_budget() -> None:
    context = context_band(_card(8 * GIB)).expected_bytes
    assert find_budget(_card(8 * GIB), 8 * GIB - context, 0) == context
    with pytest.raises(UsageError, match="CUDA context"):
        find_budget(_card(8 * GIB), 8 * GIB - context + 1, 0)


def test_sd15_fits_both_classes_and_says_where_it_is_tightest() -> None:
    for card in ("8gb", "12gb"):
        verdict = _judge("sd15", card)
        assert verdict.kind is VerdictKind.FITS
        assert (verdict.peak_phase, verdict.peak_component) == ("decode_image", "vae.decoder")
        assert "vae.decoder" in verdict.reason


def test_fits_is_monotone_in_capacity() -> None:
    order = list(VerdictKind)
    kinds = [_judge("sd15", _card(size * 256 * MIB)).kind for size in range(6, 24)]
    assert [order.index(kind) for kind in kinds] == sorted(map(order.index, kinds), reverse=True)
    assert kinds[0] is VerdictKind.OOM
    assert kinds[-1] is VerdictKind.FITS


def test_windows_spills_where_linux_fails() -> None:
    assert _judge("sd15", _card(2 * GIB)).kind is VerdictKind.OOM
    assert _judge("sd15", _card(2 * GIB), platform="windows").kind is VerdictKind.OFFLOAD


def test_a_ggml_engine_keeps_layers_on_the_cpu() -> None:
    verdict = _judge("llava:7b", _card(4 * GIB))
    assert verdict.kind is VerdictKind.OFFLOAD
    assert "of 33 layers on the GPU" in verdict.reason


def test_the_worst_of_a_class_is_named() -> None:
    verdict = _judge("sd15", "8gb")
    capabilities = {card.compute_capability for card in CATALOG.card("8gb").candidates}
    assert len(capabilities) > 1
    assert verdict.judged_as.rpartition(" ")[2] in capabilities


def test_side_by_side_needs_add_up() -> None:
    names = ("sd15", "llava:7b")
    jobs = make_jobs(names, CATALOG, {})
    choice = CardChoice(label="c", title="c", candidates=(_card(12 * GIB),))
    verdict, estimates = judge_together(jobs, choice)
    assert verdict.need.expected_bytes == sum(e.need.band.expected_bytes for e in estimates)
    assert all(name in verdict.reason for name in names)


@pytest.mark.parametrize("name", ["sd15", "sd15-vae", "sdxl", "llava:7b", "log-anomaly-ae"])
def test_terms_add_up_to_the_device(name: str) -> None:
    (job,) = make_jobs([name], CATALOG, {})
    choice = CardChoice(label="c", title="c", candidates=(_card(48 * GIB),))
    _, found = judge(job, choice)
    bands = [line.band for line in found.lines]
    device = found.peak.device
    assert sum(band.low_bytes for band in bands) == device.low_bytes
    assert sum(band.expected_bytes for band in bands) == device.expected_bytes
    assert sum(band.high_bytes for band in bands) == device.high_bytes
    need = found.need.band
    assert need.low_bytes <= need.expected_bytes <= need.high_bytes
    assert need.expected_bytes <= device.expected_bytes


def test_offload_auto_takes_the_first_mode_that_fits_and_says_which() -> None:
    roomy = _judge("sd15", "8gb", offload="auto")
    assert roomy.kind is VerdictKind.FITS
    assert "offload" not in roomy.reason
    small = _judge("sd15", _card(3 * GIB), offload="auto")
    assert small.kind is VerdictKind.OFFLOAD
    assert small.reason.startswith("runs with model offload, its components wait")
    tiny = _judge("sd15", _card(1 * GIB), offload="auto")
    assert tiny.kind is VerdictKind.OOM
    assert tiny.reason.startswith("even with sequential offload it fails")


def test_the_reason_says_what_the_need_is_made_of() -> None:
    """Weights, context and work add up to the need, to the rounding of three figures."""
    (job,) = make_jobs(["sd15"], CATALOG, {})
    choice = CATALOG.card("rtx-3060-12gb")
    verdict, found = judge(job, choice)
    told = re.search(
        r"with (.*) of weights, (.*) of CUDA context and (.*) to work in", verdict.reason
    )
    assert told is not None
    weights, context, work = (
        parse_size(size.replace(",", "").replace(" ", "")) for size in told.groups()
    )
    need = found.need.band.expected_bytes
    assert need <= weights + context + work <= need + 3 * MIB
    assert context - MIB < found.bytes_of(LineKind.CUDA_CONTEXT) <= context


@pytest.mark.parametrize(
    ("gained_mib", "is_useful_now"), [(-100, False), (0, False), (102, False), (103, True)]
)
def test_a_change_that_closes_a_tenth_of_the_gap_is_worth_telling(
    gained_mib, is_useful_now
) -> None:
    """A need of 4 GiB on a budget of 3 GiB lacks 1 GiB."""
    verdict = replace(_judge("sd15", "24gb"), kind=VerdictKind.OOM, need=NEED, budget_bytes=3 * GIB)
    with_it = replace(verdict, need=Band.exactly(4 * GIB - gained_mib * MIB))
    assert is_useful(with_it, verdict) is is_useful_now
    assert is_useful(replace(with_it, kind=VerdictKind.FITS), verdict) is (gained_mib > 0)
