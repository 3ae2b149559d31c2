"""Whatever an estimate or a verdict holds, every renderer writes it down and none raises."""

from __future__ import annotations

import json
import re

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from vramplan.model import (
    Advice,
    Band,
    Buffer,
    Card,
    Component,
    Device,
    Estimate,
    LayerSplit,
    Line,
    LineKind,
    Need,
    Origin,
    Peak,
    PhaseUse,
    Pipeline,
    PublishedFigure,
    TimelinePoint,
    Verdict,
    VerdictKind,
)
from vramplan.report import html, markdown, serial, tables

UNSAFE = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\ud800-\udfff]")

words = st.one_of(
    st.sampled_from(
        ["", "unet", "decode_image", "weights", "CUDA context", "a|b", "`", "<b>", "模型"]
    ),
    st.text(st.characters(), max_size=30),
    st.just("x" * 1000),
    st.just("\x1b[31m<script>alert(1)</script>\x1b]0;a\x07"),
)
sizes = st.one_of(st.integers(0, 2**36), st.sampled_from([0, 1, 2**20, 10 * 2**30, 2**45]))
bands = st.lists(sizes, min_size=3, max_size=3).map(
    lambda three: Band(**dict(zip(("low_bytes", "expected_bytes", "high_bytes"), sorted(three))))  # noqa: B905  # three of each
)
settings_of = st.dictionaries(
    words, st.one_of(words, st.integers(), st.floats(), st.tuples(sizes, sizes)), max_size=3
)


kinds = st.sampled_from(LineKind)
devices = st.builds(Device, gpu=st.none() | st.integers(0, 7))


def several(strategy: st.SearchStrategy) -> st.SearchStrategy:
    return st.lists(strategy, max_size=3).map(tuple)


estimates = st.builds(
    Estimate,
    pipeline=words,
    title=words,
    runtime=words,
    settings=settings_of,
    compute_capability=words,
    components=several(
        st.builds(Component, name=words, parameters=sizes, dtype=words, weights_bytes=sizes,
                  device=st.sampled_from(["gpu", "cpu", "split"]))
    ),
    phases=several(
        st.builds(PhaseUse, name=words, component=words, allocated_peak_bytes=sizes,
                  reserved_peak_bytes=sizes, device_used_bytes=sizes)
    ),
    lines=several(
        st.builds(Line, kind=kinds, device=devices, name=words, phase=st.none() | words,
                  component=st.none() | words, band=bands,
                  origin=st.sampled_from(Origin), source=words)
    ),
    peak=st.builds(Peak, phase=words, component=words, allocated_bytes=sizes,
                   reserved_bytes=sizes, device=bands),
    need=st.builds(Need, band=bands, phase=words, component=words),
    timeline=several(
        st.builds(TimelinePoint, phase=words, component=words, allocated_bytes=sizes,
                  reserved_bytes=sizes)
    ),
    buffers=several(st.builds(Buffer, kind=kinds, device=devices, size_bytes=sizes)),
    layers=st.none() | st.builds(LayerSplit, total=st.integers(0, 99), on_gpu=st.integers(0, 99)),
    published=several(
        st.builds(PublishedFigure, claim=words, what=words, published_bytes=sizes,
                  ours_bytes=st.none() | sizes, source=words, remark=st.none() | words)
    ),
    notes=several(words),
)  # fmt: skip
verdicts = st.builds(
    Verdict,
    pipeline=words,
    card=words,
    card_title=words,
    judged_as=words,
    kind=st.sampled_from(VerdictKind),
    need=bands,
    budget_bytes=st.integers(-(2**36), 2**40),
    offload_risk=st.floats(0, 1) | st.just(float("nan")),
    peak_phase=words,
    peak_component=words,
    reason=words,
    parts=st.dictionaries(words, sizes, max_size=2),
    advice=several(
        st.builds(Advice, change=words, effect=words, cost=words, need_bytes=st.none() | sizes)
    ),
)
cards = st.builds(
    Card,
    name=words,
    title=words,
    kind=words,
    class_gib=st.integers(0, 200),
    total_bytes=sizes,
    reserved_bytes=sizes,
    compute_capability=words,
    bandwidth_bytes_per_s=sizes,
    source=words,
    free_bytes=st.none() | sizes,
    aliases=several(words),
)
pipelines = st.builds(
    Pipeline,
    name=words,
    title=words,
    summary=words,
    runtime=words,
    defaults=settings_of,
    constraints=st.just({}),
    source=words,
    path=words,
    aliases=several(words),
)

few = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def check_text(text: str) -> None:
    """A page or a terminal may get this text: no controls but line ends, and it can be written."""
    assert not UNSAFE.search(text)
    text.encode("utf-8")


@few
@given(several(verdicts), several(estimates), st.sampled_from([20, 80, 100, 160]))
def test_check_is_rendered_whatever_it_holds(rows, known, width) -> None:
    text = tables.render_check(rows, known, colour=False, width=width)
    check_text(text)
    if width >= 100:
        assert all(len(line) <= width for line in text.splitlines())
    tables.render_check(rows, known, colour=True, width=width)
    check_text(markdown.render_check(rows, known))


@few
@given(estimates, several(cards), st.sampled_from([20, 80, 100, 160]))
def test_an_estimate_is_rendered_whatever_it_holds(estimate, known, width) -> None:
    text = tables.render_estimate(estimate, colour=False, width=width, cards=known)
    check_text(text)
    if width >= 100:
        assert all(len(line) <= width for line in text.splitlines())
    tables.render_estimate(estimate, colour=True, width=width, cards=known)
    check_text(markdown.render_estimate(estimate, cards=known))


@few
@given(several(estimates), several(verdicts), several(cards))
def test_a_report_is_rendered_whatever_it_holds(known, rows, offers) -> None:
    text = html.render_report(known, rows, offers)
    check_text(text)
    assert "<script" not in text
    assert "nan" not in re.findall(r'(?:x|y|width|height|d|cx|cy)="([^"]*)"', text)


@few
@given(several(pipelines), several(cards))
def test_the_catalogue_is_rendered_whatever_it_holds(known, offers) -> None:
    for text in (
        tables.render_catalog(known),
        tables.render_cards(offers),
        markdown.render_catalog(known),
        markdown.render_cards(offers),
    ):
        check_text(text)


@few
@given(several(verdicts), estimates, several(pipelines), several(cards))
def test_json_is_written_and_read_back_whatever_it_holds(rows, estimate, known, offers) -> None:
    results = {
        "check": serial.check_result(rows),
        "estimate": serial.estimate_result(estimate),
        "catalog": serial.catalog_result(known),
        "cards": serial.cards_result(offers),
    }
    for command, result in results.items():
        text = serial.to_json(command, result)
        assert text.isascii()
        assert json.loads(text)["result"] == result
