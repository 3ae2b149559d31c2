"""Reports of programs on pretended cards: the page, its picture, and what a stranger's text may."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from dataclasses import replace

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
from vramplan.report.trial_svg import draw_trial
from vramplan.report.trials import render

MIB = 1 << 20
LINE = CodePlace(file="<b>train.py", line=15, function="train")
TRIAL = Trial(
    outcome=TrialOutcome.OUT_OF_MEMORY, card="8gb", card_title="8 GB class",
    compute_capability="8.6", total_bytes=7743 * MIB, status=1, ended_by="OutOfMemoryError",
    context_bytes=(150 * MIB, 195 * MIB, 300 * MIB), allocated_peak_bytes=7000 * MIB,
    reserved_peak_bytes=7300 * MIB, device_peak_bytes=7495 * MIB, errors=1,
    failed=FailedAllocation(
        asked_bytes=300 * MIB, allocated_bytes=7000 * MIB, reserved_bytes=7300 * MIB,
        free_bytes=100 * MIB, where=LINE, inside=("Net",), operator="linear",
        holders=(Holder(size_bytes=4000 * MIB, name="weights of <i>Net"),
                 Holder(size_bytes=3000 * MIB, place=LINE)),
    ),
    timeline=tuple(
        Moment(launches=50 * n, allocated_bytes=1000 * n * MIB, reserved_bytes=1040 * n * MIB,
               place=LINE if n > 2 else None)
        for n in range(8)
    ),
    advice=(Advice(text="a smaller batch", saves_bytes=900 * MIB), Advice(text="tiles")),
    versions=(("torch", "2.14.1"),),
)  # fmt: skip


def page(*trials: Trial) -> str:
    return render(trials, Look(format="html", command="run"), command=["python", "<script>.py"])


def test_page_says_where_it_ended_what_held_the_memory_and_what_would_help() -> None:
    text = page(TRIAL)
    assert "<h1>Does it run?</h1>" in text
    assert "asking for 300 MiB with 7,000 MiB allocated and 100 MiB free" in text
    assert "a smaller batch (about 900 MiB)" in text
    assert "<li>tiles</li>" in text
    assert "4,000 MiB" in text
    assert "By the line that allocated it, when memory ended" in text
    assert text.count("<svg") == 2 + 3 + 1  # wide and narrow, three swatches, and the bar


def test_top_of_the_page_says_where_it_stops_who_holds_the_memory_and_what_to_change() -> None:
    top = page(TRIAL).partition("Memory over the run</h3>")[0]
    assert "It runs out of memory on 8gb." in top
    assert "≥ <b>7,795 MiB</b> of 7,743 MiB" in top  # context, reserved, and what it asked
    assert "train.py:15 (train), asking for 300 MiB" in top
    assert "weights of &lt;i&gt;Net <b>4,000 MiB</b>" in top
    assert "a smaller batch (about 900 MiB)" in top
    done = replace(TRIAL, outcome=TrialOutcome.COMPLETES, card="12gb", failed=None, advice=())
    assert "It completes on 12gb, and runs out of memory on 8gb and 6gb." in page(
        TRIAL, done, replace(TRIAL, card="6gb")
    )


def test_strangers_text_is_inert_on_the_page() -> None:
    text = page(TRIAL)
    for raw in ("<script>", "<b>train", "<i>Net"):
        assert raw not in text
    assert "&lt;b&gt;train.py:15" in text


def test_page_of_several_cards_has_a_chapter_each_and_no_picture_where_nothing_ran() -> None:
    done = replace(
        TRIAL, outcome=TrialOutcome.COMPLETES, card="12gb", failed=None, advice=(), timeline=()
    )
    text = page(TRIAL, done)
    assert 'id="r0"' in text
    assert 'id="r1"' in text
    assert text.count("Memory over the run</h3>") == 1


def test_picture_is_well_formed_and_says_in_words_what_it_shows() -> None:
    for width in (880, 340):
        svg = ET.fromstring(draw_trial("a", TRIAL, width))  # noqa: S314  # our own
        said = "".join(svg.itertext())
        assert "ended at 7,000 MiB" in said
        assert "8gb has 7,743 MiB" in said
        assert "<b>train.py:15 (train)" in said
        assert "350 launches and copies" in said
    assert draw_trial("a", replace(TRIAL, timeline=TRIAL.timeline[:1])) == ""


def test_limit_far_above_is_said_and_not_drawn() -> None:
    roomy = replace(TRIAL, total_bytes=80 << 30, outcome=TrialOutcome.COMPLETES)
    picture = draw_trial("a", roomy)
    assert "far above" in picture
    assert 'class="card"' not in picture


def test_table_has_the_advice_with_what_it_frees() -> None:
    text = render([TRIAL], Look(format="table", command="run", width=100), command=["x"])
    assert "what would help, and about what it spares" in text
    assert "900 MiB  a smaller batch" in text
    assert "weights of <i>Net" in text
