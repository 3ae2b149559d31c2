"""Terminal tables: what is on them, that they fit the width, and how they look."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from vramplan.ask.targets import make_jobs
from vramplan.catalog import load_catalog
from vramplan.engines.door import engine_of
from vramplan.model import Band, Need
from vramplan.report import tables
from vramplan.report.budget import work_of
from vramplan.report.tables import render_check, render_estimate
from vramplan.report.text import for_encoding
from vramplan.report.verdict_rows import bar

ESCAPE = re.compile(r"\x1b\[[0-9;]*m")


@pytest.mark.parametrize("width", [80, 100, 140])
def test_check_looks_as_it_did(samples, golden, width: int) -> None:
    text = tables.render_check(samples.verdicts, samples.estimates, colour=False, width=width)
    golden(f"report_check_{width}.txt", text)


@pytest.mark.parametrize("width", [80, 100])
def test_estimate_looks_as_it_did(samples, golden, width: int) -> None:
    rendered = [
        tables.render_estimate(estimate, colour=False, width=width, cards=samples.cards)
        for estimate in samples.estimates
    ]
    golden(f"report_estimate_{width}.txt", "\n".join(rendered))


def test_catalog_and_cards_look_as_they_did(samples, golden) -> None:
    golden("report_catalog.txt", tables.render_catalog(samples.pipelines))
    golden("report_cards.txt", tables.render_cards(samples.cards))


@pytest.mark.parametrize("width", [72, 80, 100, 200])
def test_no_line_is_wider_than_asked(samples, width: int) -> None:
    texts = [
        tables.render_check(samples.verdicts, samples.estimates, colour=False, width=width),
        tables.render_estimate(samples.sd15, colour=False, width=width, cards=samples.cards),
        tables.render_estimate(samples.llava, colour=False, width=width),
        tables.render_catalog(samples.pipelines, width=width),
    ]
    for text in texts:
        assert max(len(line) for line in text.splitlines()) <= width


def test_colour_changes_nothing_but_colour(samples) -> None:
    for width in (80, 100, 140):
        plain = tables.render_check(samples.verdicts, samples.estimates, colour=False, width=width)
        bright = tables.render_check(samples.verdicts, samples.estimates, colour=True, width=width)
        assert "\x1b[" not in plain
        assert "\x1b[32m✓ fits" in bright
        assert _bare(bright) == _bare(plain)
    plain = tables.render_estimate(samples.sd15, colour=False, width=100, cards=samples.cards)
    bright = tables.render_estimate(samples.sd15, colour=True, width=100, cards=samples.cards)
    assert _bare(bright) == _bare(plain)


def _bare(text: str) -> list[str]:
    return [ESCAPE.sub("", line).rstrip() for line in text.splitlines()]


@pytest.mark.parametrize("width", [80, 100, 140])
def test_check_says_of_every_pair_what_a_user_asks(samples, width: int) -> None:
    text = tables.render_check(samples.verdicts, samples.estimates, colour=False, width=width)
    for word in ("✓ fits", "~ tight", "⚠ offload", "✗ oom", "3,704 MiB", "3,414–3,984"):
        assert word in text
    for word in ("7,937 MiB", "4,233 MiB", "31 %", "decode_image", "vae.decoder", "859,520,964"):
        assert word in text
    assert "pipe.enable_vae_tiling()" in text
    assert "rtx-3060-12gb" in text


def test_one_advice_for_two_cards_is_said_once(samples) -> None:
    text = tables.render_check(samples.verdicts, (), colour=False, width=100)
    assert text.count("pipe.enable_vae_tiling()") == 1
    assert "on 8gb, 12gb · decodes the image in tiles" in text


def test_the_worst_estimate_stands_for_a_pipeline(samples) -> None:
    larger = replace(
        samples.sd15,
        compute_capability="9.0",
        need=Need(
            band=samples.sd15.need.band + samples.sd15.need.band, phase="load", component="unet"
        ),
    )
    text = tables.render_check(samples.verdicts, (samples.sd15, larger), colour=False, width=100)
    assert "compute capability 9.0" in text
    assert "compute capability 8.6" not in text


def test_what_the_terms_leave_of_the_peak_is_drawn(samples) -> None:
    fewer = replace(samples.sd15, lines=samples.sd15.lines[:-1])
    text = tables.render_estimate(fewer, colour=False, width=100)
    line = next(line for line in text.splitlines() if "not itemised" in line)
    assert line.endswith("450 MiB")


def test_estimate_names_every_source_once(samples) -> None:
    text = tables.render_estimate(samples.sd15, colour=False, width=100)
    assert text.count("counted from the component's config") == 1
    assert text.count("exact     [1]") == 5
    assert "−44.2 %" in text


def test_nothing_to_show_is_said() -> None:
    assert tables.render_check((), (), colour=False, width=80) == "nothing to judge\n"
    assert tables.render_catalog(()) == "no pipelines\n"
    assert tables.render_cards(()) == "no cards\n"


@pytest.mark.parametrize(
    ("low", "expected", "high", "drawn"),
    [
        (1, 1, 1, "█░░░░░░░░░"),
        (400, 460, 500, "█████░░░░░"),
        (400, 460, 640, "█████▒▒░░░"),
        (900, 1000, 1000, "██████████"),
        (900, 1000, 1001, "██████████▒"),
        (500, 600, 1200, "██████▒▒▒▒▒"),
        (900, 1001, 1001, "██████████▶"),
        (10**6, 10**9, 10**12, "██████████▶"),
    ],
)
def test_a_bar_goes_beyond_the_budget_only_where_the_need_does(
    samples, low: int, expected: int, high: int, drawn: str
) -> None:
    need = Band(low_bytes=low, expected_bytes=expected, high_bytes=high)
    verdict = replace(samples.verdicts[0], budget_bytes=1000, need=need)
    assert bar(verdict) == drawn
    assert bar(replace(verdict, budget_bytes=0)).endswith("▶")


@pytest.mark.parametrize("width", [80, 100, 120, 160])
def test_every_verdict_has_its_bar_at_every_width(samples, width: int) -> None:
    text = render_check(samples.verdicts, samples.estimates, colour=False, width=width)
    table = text.split("\n\n")[0]
    assert max(map(len, table.splitlines())) <= width
    for verdict in samples.verdicts:
        assert bar(verdict) in table
    assert sum("█" in line for line in table.splitlines()) == len(samples.verdicts)


def test_every_sign_of_ours_has_another_in_ascii(samples) -> None:
    """A question mark would be a bar that says nothing."""
    text = render_check(samples.verdicts, samples.estimates, colour=False, width=100)
    text += render_estimate(samples.sd15, cards=samples.cards, colour=False, width=100)
    assert "?" not in for_encoding(text, "ascii")


def test_the_work_of_a_part_without_a_row_is_its_wholes() -> None:
    (job,) = make_jobs(["flux1-dev"], load_catalog(), {})
    found = engine_of(job.pipeline).estimate(job, load_catalog().cards["rtx-4090"])
    assert found.peak.component == "vae.decoder"
    assert [one.name for one in found.components].count("vae") == 1
    phase, work = work_of(found, "vae")
    assert (phase, work > 1 << 30) == ("decode_image", True)
    assert work_of(found, "transformer") == (None, 0)
