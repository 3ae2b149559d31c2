"""The page of ``vramplan run`` in a browser: what it shows first, its width, and axe."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from vramplan.measurement.tried import (
    Advice,
    CodePlace,
    FailedAllocation,
    Holder,
    Moment,
    Trial,
    TrialOutcome,
)
from vramplan.report.look import Look
from vramplan.report.trials import render

pytestmark = pytest.mark.browser

MIB = 1 << 20
LINE = CodePlace(file="a/folder/with/a/long/name/train_text_to_image.py", line=15, function="main")
ENDED = Trial(
    outcome=TrialOutcome.OUT_OF_MEMORY, card="8gb", card_title="8 GB class", status=1,
    compute_capability="8.6", total_bytes=7743 * MIB, ended_by="OutOfMemoryError", errors=1,
    context_bytes=(150 * MIB, 195 * MIB, 300 * MIB), allocated_peak_bytes=7000 * MIB,
    reserved_peak_bytes=7300 * MIB, device_peak_bytes=7495 * MIB,
    failed=FailedAllocation(
        asked_bytes=300 * MIB, allocated_bytes=7000 * MIB, reserved_bytes=7300 * MIB,
        free_bytes=100 * MIB, where=LINE, inside=("UNet2DConditionModel", "CrossAttnUpBlock2D"),
        holders=(Holder(size_bytes=4000 * MIB, name="weights of UNet2DConditionModel"),
                 Holder(size_bytes=3000 * MIB, place=LINE)),
    ),
    timeline=tuple(
        Moment(launches=50 * n, allocated_bytes=1000 * n * MIB, reserved_bytes=1040 * n * MIB,
               place=LINE) for n in range(8)
    ),
    advice=(Advice(text="gradient checkpointing: --gradient_checkpointing", saves_bytes=MIB),),
)  # fmt: skip
DONE = replace(ENDED, outcome=TrialOutcome.COMPLETES, card="24gb", failed=None, advice=(), status=0)


@pytest.fixture
def open_report(chromium, tmp_path: Path):
    path = tmp_path / "run.html"
    look = Look(format="html", command="run")
    path.write_text(render([ENDED, DONE], look, command=["python", "train.py"]))
    contexts = []

    def opened(width: int = 1200, look: str = "light"):
        context = chromium.new_context(viewport={"width": width, "height": 900}, color_scheme=look)
        contexts.append(context)
        page = context.new_page()
        page.goto(path.as_uri())
        return page

    yield opened
    for context in contexts:
        context.close()


def test_first_screen_says_where_it_stops_who_holds_the_memory_and_what_to_change(
    open_report,
) -> None:
    for width in (1200, 390):
        page = open_report(width)
        for text in ("It completes on 24gb", "text_to_image.py:15", "4,000 MiB", "What helps"):
            box = page.get_by_text(text).first.bounding_box()
            assert box["y"] + box["height"] < 900


@pytest.mark.parametrize("width", [320, 390, 1200])
def test_nothing_is_wider_than_the_page(open_report, width: int) -> None:
    page = open_report(width)
    wide = page.evaluate(
        "[...document.querySelectorAll('.bar *')].filter(one => {"
        " const right = part => part.getBoundingClientRect().right;"
        " return right(one) > right(one.closest('.bar')) + 1 }).map(one => one.outerHTML)"
    )
    assert wide == []
    assert page.evaluate("document.documentElement.scrollWidth") == width


@pytest.mark.parametrize("look", ["light", "dark"])
def test_axe_finds_nothing(open_report, look: str) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright")
    found = axe.Axe().run(open_report(look=look)).response["violations"]
    assert [(one["id"], one["nodes"][0]["html"]) for one in found] == []
