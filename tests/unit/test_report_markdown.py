"""Markdown: the same tables for GitHub, and strangers' text that stays text."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from vramplan.report import markdown


def test_check_and_estimate_look_as_they_did(samples, golden) -> None:
    golden("report_check.md", markdown.render_check(samples.verdicts, samples.estimates))
    rendered = (
        markdown.render_estimate(estimate, cards=samples.cards) for estimate in samples.estimates
    )
    golden("report_estimate.md", "\n".join(rendered))


def test_catalog_and_cards_look_as_they_did(samples, golden) -> None:
    golden("report_catalog.md", markdown.render_catalog(samples.pipelines))
    golden("report_cards.md", markdown.render_cards(samples.cards))


@pytest.mark.parametrize(
    ("text", "escaped"),
    [
        ("a|b", r"a\|b"),
        ("<script>alert(1)</script>", "&lt;script&gt;alert(1)&lt;/script&gt;"),
        ("[x](javascript:y)", r"\[x\](javascript:y)"),
        ("*bold* `code`", r"\*bold\* \`code\`"),
        ("_edge_ of max_memory_allocated", r"\_edge\_ of max_memory_allocated"),
        ("# heading", r"\# heading"),
        ("- item", r"\- item"),
        ("1. item", r"1\. item"),
        ("3.18 GiB, -3 MiB", "3.18 GiB, -3 MiB"),
        ("back\\slash & more", r"back\\slash &amp; more"),
        ("https://example.org/a_b-c#d", "https://example.org/a_b-c#d"),
    ],
)
def test_text_is_shown_and_not_obeyed(text: str, escaped: str) -> None:
    assert markdown.escape(text) == escaped


def test_nobody_is_notified() -> None:
    assert "@someone" not in markdown.escape("thanks @someone")


def test_a_hostile_name_keeps_every_table_whole(samples) -> None:
    evil = "a|b\n| c | `</td>"
    verdicts = [replace(verdict, pipeline=evil, card=evil) for verdict in samples.verdicts]
    estimate = replace(samples.sd15, pipeline=evil, title=evil, runtime=evil)
    text = markdown.render_check(verdicts, (estimate,))
    table = [line for line in text.splitlines() if line.startswith("|")]
    cells = [len(re.split(r"(?<!\\)\|", line)) for line in table[: 2 + len(verdicts)]]
    assert set(cells) == {10}
    assert "\n```" not in markdown.render_estimate(estimate).split("```text")[0]


def test_a_name_of_back_ticks_does_not_end_the_picture(samples) -> None:
    lines = tuple(replace(line, name="```") for line in samples.sd15.lines)
    text = markdown.render_estimate(replace(samples.sd15, lines=lines))
    assert text.count("```") == 2


def test_nothing_to_judge_is_said() -> None:
    assert markdown.render_check((), ()) == "Nothing to judge.\n"
