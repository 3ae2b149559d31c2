"""Whatever a stranger has written is text in every output, and not too much of it."""

from __future__ import annotations

import csv
import importlib.util
import io
import json
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass, replace
from enum import Enum
from html.parser import HTMLParser
from itertools import cycle
from pathlib import Path
from typing import Any

import pytest

from vramplan.compare.comparison import Explanation, compare_run
from vramplan.measurement.peaks import Peaks
from vramplan.measurement.reading import DeviceMemory, ProcessMemory, Reading
from vramplan.measurement.watched import Plan, Watched
from vramplan.model import SweepRow
from vramplan.report import (
    cards,
    catalog,
    comparison,
    estimate,
    fit,
    measured_run,
    plan,
    sweep,
    verdicts,
    watch,
)
from vramplan.report.look import Look
from vramplan.report.text import width_of

_PATH = Path(__file__).parents[1] / "synthetic_runs.py"
_SPEC = importlib.util.spec_from_file_location("synthetic_runs", _PATH)
synthetic = sys.modules.setdefault("synthetic_runs", importlib.util.module_from_spec(_SPEC))
if not hasattr(synthetic, "a_run"):
    _SPEC.loader.exec_module(synthetic)

EVIL = {
    "script": "<script>alert(1)</script><img src=x onerror=alert(1)>",
    "quotes": "'\"`\"'\" onmouseover=alert(1) x='{{ 7*7 }}{% raw %}]]>--><style>*{}</style>",
    "escapes": "a\x1b[2J\x1b]0;owned\x07\x9b31m\x00\r\nb\u202e\u2066\ud800",
    "markdown": "[x](javascript:alert(1)) ![i](http://h/p.png) | a | <b>`` ``` @team #1 \n# head",
    "formula": "=cmd|' /C calc'!A0",
    "long": "x" * 10_000,
    "wide": "模" * 10_000,
}
#: controls, what turns text round, and halves of pairs
UNSAFE = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def poison(thing: Any, text: Callable[[], str]) -> Any:
    """Return `thing` with what `text` gives for each of its texts; words of a fixed list stay."""
    if isinstance(thing, Enum) or thing is None:
        return thing
    if isinstance(thing, str):
        return text()
    if is_dataclass(thing):
        changed = {
            one.name: poison(getattr(thing, one.name), text)
            for one in fields(thing)
            if one.init and one.name not in KEPT
        }
        return replace(thing, **changed)
    if isinstance(thing, tuple):
        return type(thing)(poison(one, text) for one in thing)
    if isinstance(thing, Mapping):
        return {key: poison(value, text) for key, value in thing.items()}
    return thing


#: words that the model itself sets, from a list of its own
KEPT = {"device", "kind", "constraints", "compute_capability", "turn", "waterfall"}


@pytest.fixture(scope="module")
def results(samples) -> dict[str, Any]:
    """What each command may have to show."""
    from vramplan import plan as make_plan

    planned = synthetic.an_estimate("log-anomaly-ae")
    run = synthetic.a_run(planned)
    return {
        "samples": (samples.estimates, samples.verdicts, samples.cards, samples.pipelines),
        "run": run,
        "comparison": compare_run(planned, run),
        "plan": make_plan("sd15-vae", card="1GiB", image="1024x1024"),
    }


def renders(
    results: Mapping[str, Any], texts: Sequence[str], first: int
) -> Iterator[tuple[str, Callable[[Look], str]]]:
    """Yield every subject with `texts` for its names, one after the other, as what renders it."""
    turns = cycle([*texts[first:], *texts[:first]])

    def text() -> str:
        return next(turns)

    known, judged, offers, pipelines = poison(results["samples"], text)
    # one pipeline with all of it: a name would part what belongs together
    yield "check", lambda look: verdicts.render(judged, known, offers, look)
    yield "report", lambda look: fit.render(judged, known, offers, look, words=list(texts))
    yield "estimate", lambda look: estimate.render(known[0], offers, look)
    yield "cards", lambda look: cards.render(offers, offers, texts, look)
    yield "catalog", lambda look: catalog.render_list(pipelines, look)
    compared = poison(results["comparison"], text)
    yield "compare", lambda look: comparison.render(compared, look)
    explained = Explanation(estimate=None, waterfall=compared.waterfall, sentences=tuple(texts))
    yield "explained", lambda look: comparison.render_explanation(explained, look)
    ran = poison(results["run"], text)
    yield "run", lambda look: measured_run.render(ran, look)
    planned = poison(results["plan"], text)
    yield "plan", lambda look: plan.render(planned, look)
    peaks = Peaks()
    held = tuple(
        ProcessMemory(pid=number, name=one, used_bytes=5, kind=one)
        for number, one in enumerate(texts)
    )
    memory = DeviceMemory(
        total_bytes=9, used_bytes=7, free_bytes=2, reserved_bytes=None, processes=held
    )
    peaks.take(Reading(at_s=0.0, device=memory))
    watched = [Watched(label=text(), peaks=peaks, plan=Plan(label=text(), size_bytes=3))]
    yield "watch", lambda look: watch.render(watched, look)


PAGES = {"check", "report", "estimate", "compare", "explained", "run"}
#: where the texts begin, so that each gets into other fields
FIRST = (0, 3)


def pairs(results, first: int, chosen: str) -> Iterator[tuple[str, str, str]]:
    """Yield each subject's text in one format, and what it is when nobody means harm."""
    plain = [f"a name {number}" for number in range(len(EVIL))]
    benign = dict(renders(results, plain, first))
    for subject, render in renders(results, list(EVIL.values()), first):
        look = Look(format=chosen, command=subject)
        if chosen != "html" or subject in PAGES:
            yield subject, render(look), benign[subject](look)


@pytest.mark.parametrize("first", FIRST)
def test_a_terminal_gets_no_command_and_no_line_too_long(results, first: int) -> None:
    subjects = 0
    for subject, text, harmless in pairs(results, first, "table"):
        assert not UNSAFE.search(text), subject
        # a plan's lines are to be typed, and never broken
        assert subject == "plan" or max(map(width_of, text.splitlines())) <= 100, subject
        assert len(text) < 60_000 + 4 * len(harmless), subject
        subjects += 1
    assert subjects == 10


@pytest.mark.parametrize("first", FIRST)
def test_markdown_shows_it_and_does_not_obey_it(results, first: int) -> None:
    markdown_it = pytest.importorskip("markdown_it")
    parser = markdown_it.MarkdownIt("gfm-like", {"html": True, "linkify": False})
    for subject, text, harmless in pairs(results, first, "markdown"):
        assert not UNSAFE.search(text), subject
        assert len(text) < 60_000 + 4 * len(harmless), subject
        marked, plain = (Page(parser.render(one)) for one in (text, harmless))
        assert set(marked.tags) <= {*plain.tags, "code"}, subject
        assert marked.attributes() <= plain.attributes() | {("code", "class")}, subject
        assert marked.tags["tr"] == plain.tags["tr"], f"{subject}: a row is broken"
        assert marked.tags["h1"] == 0, subject


@pytest.mark.parametrize("first", FIRST)
def test_a_page_has_no_tag_and_no_attribute_of_a_stranger(results, first: int) -> None:
    for subject, text, harmless in pairs(results, first, "html"):
        assert not UNSAFE.search(text), subject
        text.encode("utf-8")
        assert len(text) < 100_000 + 4 * len(harmless), subject
        page, plain = Page(text), Page(harmless)
        assert set(page.tags) <= set(plain.tags), subject
        assert page.attributes() <= plain.attributes(), subject
        assert page.tags["style"] == 1
        assert not any(name.startswith("on") or name == "style" for _, name in page.attributes())


@pytest.mark.parametrize("first", FIRST)
def test_json_holds_it_to_the_letter(results, first: int) -> None:
    for subject, text, _ in pairs(results, first, "json"):
        assert text.isascii(), subject
        assert not UNSAFE.search(text), subject
        held = set(_strings(json.loads(text)))
        assert held & set(EVIL.values()), subject


@pytest.mark.parametrize("name", EVIL)
def test_rows_stay_rows_and_no_field_is_a_formula(samples, name: str) -> None:
    verdict = poison(samples.verdicts[0], lambda: EVIL[name])
    row = SweepRow(
        pipeline=EVIL[name],
        settings={"override_tensor": EVIL[name], "batch": 1},
        card=EVIL[name],
        judged_as=EVIL[name],
        kind=verdict.kind,
        need=verdict.need,
        budget_bytes=-5,
        offload_risk=0.5,
        peak_phase=EVIL[name],
        peak_component=EVIL[name],
        advice=verdict.advice,
        problem=EVIL[name],
    )
    text = (sweep.csv_head() + sweep.csv_rows([row, row])).decode()
    assert not UNSAFE.search(text)
    head, *rows = csv.reader(io.StringIO(text))
    assert [len(one) for one in rows] == [len(head)] * 2
    for column, field in zip(head, rows[0], strict=True):
        assert not field.startswith(("=", "+", "@", "\t", "\r")), column
        assert not field.startswith("-") or field.removeprefix("-").isdecimal(), column
    lines = sweep.json_rows([row, row]).decode().splitlines()
    assert [json.loads(line)["batch"] for line in lines] == [1, 1]


class Page(HTMLParser):
    """The tags of a page, and the attributes of each."""

    def __init__(self, page: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: Counter[str] = Counter()
        self._attributes: set[tuple[str, str]] = set()
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        self._attributes |= {(tag, name) for name, _ in attrs}

    def attributes(self) -> set[tuple[str, str]]:
        return self._attributes


def _strings(thing: Any) -> Iterator[str]:
    if isinstance(thing, str):
        yield thing
    elif isinstance(thing, dict):
        for value in thing.values():
            yield from _strings(value)
    elif isinstance(thing, list):
        for value in thing:
            yield from _strings(value)
