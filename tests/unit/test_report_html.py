"""The fit report: complete, self-contained, and deaf to what strangers write into their files."""

from __future__ import annotations

import re
from base64 import b64encode
from collections import Counter
from dataclasses import replace
from hashlib import sha256
from html import unescape
from html.parser import HTMLParser
from xml.etree import ElementTree as ET

import pytest

from vramplan.model import Band, TimelinePoint, VerdictKind
from vramplan.report.budget import card_offers, segments
from vramplan.report.estimate_rows import line_table
from vramplan.report.html import ReportMeta, is_link, render_report
from vramplan.report.plain import KINDS
from vramplan.report.svg import NARROW, draw_budget, draw_meter, draw_swatch, ticks
from vramplan.report.timeline import draw_timeline
from vramplan.units import GIB, MIB

META = ReportMeta(
    title="Will it fit?", created="2026-03-01", version="0", command="vramplan report"
)
EVIL = (
    "<script>alert(1)</script><img src=x onerror=alert(1)>'\"&{{ 7*7 }}{% raw %}"
    "]]>--><style>*{display:none}</style>\x1b[2J\x00\u202e\ud800"
)
VOID = {"meta", "br", "img", "link", "input", "hr"}


class Page(HTMLParser):
    """Tags, attributes and text of a page, with a check that every tag is closed in order."""

    def __init__(self, page: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: Counter[str] = Counter()
        self.attributes: list[tuple[str, str, str]] = []
        self.text: list[str] = []
        self.open: list[str] = []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.handle_startendtag(tag, attributes)
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        self.attributes += [(tag, name, value or "") for name, value in attributes]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)

    def values(self, name: str) -> list[str]:
        return [value for _, known, value in self.attributes if known == name]


@pytest.fixture(scope="module")
def page(samples) -> str:
    return render_report(samples.estimates, samples.verdicts, samples.cards, META)


def test_every_tag_is_closed_and_every_id_is_its_own(page: str) -> None:
    parsed = Page(page)
    assert parsed.open == []
    identities = Counter(parsed.values("id"))
    assert max(identities.values()) == 1
    for target in parsed.values("aria-labelledby"):
        assert set(target.split()) <= set(identities)
    inner = [value for value in parsed.values("href") if value.startswith("#")]
    assert {value[1:] for value in inner} <= set(identities)


def test_the_page_needs_nothing_from_elsewhere(page: str) -> None:
    parsed = Page(page)
    assert not {"script", "link", "img", "iframe", "object", "embed"} & set(parsed.tags)
    assert not parsed.values("src")
    assert not re.search(r"@import|url\(\s*['\"]?(?!#)", page)
    assert "default-src 'none'" in page
    outward = [value for value in parsed.values("href") if not value.startswith("#")]
    assert outward == ["https://github.com/huggingface/diffusers/tree/main/benchmarks"]


def test_the_page_says_what_a_reader_asks(page: str) -> None:
    text = re.sub(r"\s+", " ", " ".join(Page(page).text))
    for word in ("✓ Fits", "~ Only just fits", "⚠ Slower: partly", "✗ Does not fit"):
        assert word in text
    for word in ("✓ fits", "~ tight", "⚠ offload", "✗ oom", "pipe.enable_vae_tiling()"):
        assert word in text
    for word in ("3,704 MiB", "3,414–3,984", "859,520,964", "4,112 MiB", "−44.2 %"):
        assert word in text
    for word in ("rtx-3060-8gb offers 7,937 MiB", "33 of 33 layers on the GPU", "replayed"):
        assert word in text
    assert "compute capability 8.6 is assumed: no card was named" in text


def test_every_picture_has_words_that_stand_for_it(page: str) -> None:
    parsed = Page(page)
    # a budget and a timeline for each estimate, wide and narrow; a bar has its words beside it
    pictures = 2 * (2 + 2)
    assert parsed.tags["desc"] == pictures
    assert parsed.values("role").count("img") == pictures
    # a legend's squares have the legend's words beside them
    assert parsed.values("aria-hidden").count("true") == parsed.tags["svg"] - pictures


def test_strangers_text_adds_no_tag_and_no_attribute(samples, page: str) -> None:
    estimates = [
        replace(
            estimate,
            title=EVIL,
            runtime=EVIL,
            compute_capability=EVIL,
            settings=dict.fromkeys(estimate.settings, EVIL),
            components=tuple(replace(part, dtype=EVIL) for part in estimate.components),
            lines=tuple(replace(line, source=EVIL) for line in estimate.lines),
            published=tuple(replace(known, claim=EVIL) for known in estimate.published),
            notes=tuple(EVIL for _ in estimate.notes),
        )
        for estimate in samples.estimates
    ]
    verdicts = [
        replace(verdict, card_title=EVIL, reason=EVIL + verdict.card, judged_as=EVIL)
        for verdict in samples.verdicts
    ]
    hostile = render_report(estimates, verdicts, samples.cards, replace(META, command=EVIL))
    parsed, benign = Page(hostile), Page(page)
    # footnotes and reasons merge or part when their texts do; nothing else may
    assert set(parsed.tags) == set(benign.tags)
    assert {(tag, name) for tag, name, _ in parsed.attributes} <= {
        (tag, name) for tag, name, _ in benign.attributes
    }
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in hostile
    assert "49" not in re.findall(r"image <b>(.*?)</b>", hostile)
    assert not set("\x1b\x00\u202e\ud800") & set(hostile)
    hostile.encode("utf-8")


SHAPES = {"svg", "title", "desc", "defs", "pattern", "g", "rect", "line", "path", "text", "circle"}


def _parsed(picture: str) -> ET.Element:
    return ET.fromstring(picture)  # noqa: S314  # our own picture


def test_strangers_names_are_only_text_in_pictures(samples) -> None:
    evil = replace(
        samples.sd15,
        pipeline=EVIL,
        lines=tuple(replace(line, name=EVIL, component=EVIL) for line in samples.sd15.lines),
        timeline=tuple(
            replace(point, phase=EVIL, component=EVIL) for point in samples.sd15.timeline
        ),
    )
    cards = card_offers([replace(card, name=EVIL) for card in samples.cards])
    for picture in (draw_budget("a", evil, cards), draw_timeline("b", evil, cards)):
        tags = {element.tag.rsplit("}")[-1] for element in _parsed(picture).iter()}
        assert tags <= SHAPES


@pytest.mark.parametrize(
    ("text", "links"),
    [
        ("https://example.org/a?b=c#d", True),
        ("http://example.org", True),
        ("javascript:alert(1)", False),
        ("https://example.org and more", False),
        ('https://example.org/"onclick="x', False),
        ("see https://example.org", False),
    ],
)
def test_only_a_plain_web_address_is_a_link(text: str, links: bool) -> None:
    assert is_link(text) is links


def test_the_stack_is_as_wide_as_what_is_in_use(samples) -> None:
    """The pieces and the card's line are drawn on one scale."""
    svg = _parsed(draw_budget("a", samples.sd15, card_offers(samples.cards)))
    space = "{http://www.w3.org/2000/svg}"
    pieces = [rect for rect in svg.iter(f"{space}rect") if "piece" in rect.get("class", "").split()]
    right = max(float(piece.get("x", 0)) + float(piece.get("width", 0)) + 1 for piece in pieces)
    paths = [path.get("d", "") for path in svg.iter(f"{space}path") if path.get("class") == "card"]
    places = [float(path[1:].split(" ")[0]) for path in paths]
    in_use = samples.sd15.peak.device.expected_bytes
    assert len(pieces) == 9
    for place, budget in zip(places, (7937 * MIB, 12023 * MIB), strict=True):
        assert right / place == pytest.approx(in_use / budget, rel=0.005)


def test_a_card_far_beyond_the_budget_is_named_and_not_drawn(samples) -> None:
    large = replace(samples.cards[0], name="h200", total_bytes=140 * GIB)
    text = render_report([samples.sd15], (), [*samples.cards, large], META)
    assert "Beyond the right edge: h200 (139.75 GiB)." in text
    assert "h200 offers" not in text


def test_a_long_run_makes_a_small_picture_that_keeps_its_peak(samples) -> None:
    points = [
        TimelinePoint(
            phase="denoise",
            component="unet",
            allocated_bytes=(step % 97 + (1000 if step == 77_777 else 0)) * MIB,
            reserved_bytes=1100 * MIB,
        )
        for step in range(100_000)
    ]
    picture = draw_timeline("a", replace(samples.sd15, timeline=tuple(points)), ())
    assert len(picture) < 60_000
    area = next(path for path in picture.split("<path") if 'class="allocated"' in path)
    heights = [float(height) for height in re.findall(r"V([\d.]+)", area)]
    floor = heights[-1]
    # the peak of 1077 MiB and the reserved 1100 on one scale
    reserved = next(path for path in picture.split("<path") if 'class="reserved"' in path)
    held = min(float(height) for height in re.findall(r"V([\d.]+)", reserved))
    peak = 1000 + 77_777 % 97
    assert (floor - min(heights)) / (floor - held) == pytest.approx(peak / 1100, rel=0.01)


def test_ticks_are_round_and_few() -> None:
    assert ticks(12 * GIB) == [0, 2 * GIB, 4 * GIB, 6 * GIB, 8 * GIB, 10 * GIB, 12 * GIB]
    assert ticks(1) == [0]
    assert len(ticks(10**15)) <= 9


def test_a_report_of_nothing_is_a_page() -> None:
    assert Page(render_report((), (), ())).tags["h1"] == 1


# -- without the page's styles, and without a mouse -----------------------------------------------


def test_the_policy_allows_the_one_style_sheet_and_no_other(page: str) -> None:
    styles = re.findall(r"<style>(.*?)</style>", page, re.DOTALL)
    assert len(styles) == 1
    digest = b64encode(sha256(styles[0].encode()).digest()).decode()
    assert f"style-src 'sha256-{digest}';" in page
    assert "unsafe" not in page
    assert not Page(page).values("style")


def test_every_shape_has_its_colour_without_the_style_sheet(samples) -> None:
    cards = card_offers(samples.cards)
    pictures = [
        *(draw(f"a{n}", one, cards) for n, one in enumerate(samples.estimates)
          for draw in (draw_budget, draw_timeline)),
        *(draw(f"n{n}", one, cards, NARROW) for n, one in enumerate(samples.estimates)
          for draw in (draw_budget, draw_timeline)),
        *(draw_meter(one.need, one.budget_bytes, one.kind) for one in samples.verdicts),
        *(draw_swatch(f"fill-{kind}") for kind in KINDS),
        *(draw_swatch(css) for css in ("allocated", "reserved", "base")),
    ]  # fmt: skip
    for picture in pictures:
        svg = _parsed(picture)
        assert svg.get("width") == "100%" or float(svg.get("width")) > 0
        assert float(svg.get("height")) > 0
        for part in svg.iter():
            tag = part.tag.rsplit("}")[-1]
            if tag in {"rect", "circle", "text"}:
                assert part.get("fill"), ET.tostring(part)
            if tag in {"path", "line"}:
                assert part.get("stroke") or part.get("fill") not in (None, "none")
            assert part.get("style") is None


def test_what_scrolls_is_reached_by_keyboard_and_has_a_name(page: str) -> None:
    scrolled = re.findall(r'<section class="scroll[^>]*>', page)
    assert len(scrolled) > 8
    assert all('tabindex="0" aria-label="' in one for one in scrolled)
    names = re.findall(r' aria-label="([^"]*)"', page)
    assert len(set(names)) == len(names), "two regions have one name"


# -- for people who decide ------------------------------------------------------------------------


def test_the_verdicts_come_first_and_what_is_technical_is_a_click_away(samples, page: str) -> None:
    top, *chapters = page.split('<section class="chapter"')
    assert "<details" not in top[: top.index('fine key"')]
    for verdict in samples.verdicts:
        assert f'<li class="bar {verdict.kind}">' in top
        for advice in verdict.advice[:1]:
            assert advice.change in unescape(top)
    # two were estimated; of the others there are verdicts alone
    found = []
    for chapter in chapters:
        plain, *hidden = chapter.split("<details>")
        assert "<table" not in plain
        assert all("<table" in one for one in hidden)
        found.append((plain.count("<figure>"), len(hidden)))
    assert sorted(found) == [(0, 1), (0, 1), (2, 2), (2, 2)]


def test_a_bar_ends_where_the_card_does(samples) -> None:
    """The limit stands at three quarters; what needs more than the picture is torn off."""
    verdict = samples.verdicts[0]
    for need, width, is_torn in ((50, 150, False), (100, 300, False), (200, 400, True)):
        need_bytes = verdict.budget_bytes * need // 100
        svg = _parsed(draw_meter(Band.exactly(need_bytes), verdict.budget_bytes, verdict.kind))
        bars = [one for one in svg.iter() if "bar-" in one.get("class", "")]
        assert [float(one.get("width")) for one in bars] == [pytest.approx(width, abs=0.5)]
        assert any(one.get("class") == "torn" for one in svg.iter()) is is_torn


def test_a_table_of_signs_stands_before_many_verdicts(samples) -> None:
    many = [replace(one, card=f"{one.card}-{n}") for one in samples.verdicts for n in range(3)]
    page = render_report(samples.estimates, many, samples.cards, META)
    assert 'class="glance"' in page
    table = page.split('class="glance"')[1].split("</table>")[0]
    for kind in VerdictKind:
        assert table.count(f'<td class="{kind}"') == 3 * sum(
            one.kind is kind for one in samples.verdicts
        )
    assert len(Page(page).open) == 0


def test_the_wide_and_the_narrow_picture_are_told_apart_by_the_screen(page: str) -> None:
    parsed = Page(page)
    classes = parsed.values("class")
    assert classes.count("narrow") == 4
    # without the page's styles, which choose, one of them is shown
    assert parsed.values("display") == ["none"] * 4


def test_parts_below_a_mebibyte_share_a_piece_and_a_row(samples) -> None:
    first, *rest = samples.sd15.lines
    small = [replace(first, component=f"tiny{n}", band=Band.exactly(300 * 1024)) for n in range(3)]
    estimate = replace(samples.sd15, lines=(*small, *rest))
    labels = [piece.label for piece in segments(estimate)]
    assert labels.count("3 parts below 1 MiB") == 1
    assert not any("tiny" in label for label in labels)
    sizes = {piece.label: piece.size_bytes for piece in segments(estimate)}
    assert sizes["3 parts below 1 MiB"] == 3 * 300 * 1024
    table = line_table(estimate).table
    assert [row[0].text for row in table.rows].count("3 below 1 MiB") == 1
    assert not any("tiny" in cell.text for row in table.rows for cell in row)


def test_twenty_pipelines_on_ten_cards_are_a_page_that_can_be_sent(samples) -> None:
    estimates = [replace(samples.sd15, pipeline=f"model-{n}") for n in range(20)]
    verdicts = [
        replace(samples.verdicts[(n + c) % len(samples.verdicts)], pipeline=one.pipeline, card=card)
        for n, one in enumerate(estimates)
        for c, card in enumerate(f"card-{number}" for number in range(10))
    ]
    page = render_report(estimates, verdicts, samples.cards, META)
    assert len(page.encode()) < 1_500_000
    assert page.count('<li class="bar ') == 200
    assert "Of 200 combinations of model and card, " in page
