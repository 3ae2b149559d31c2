"""What the page is told: the figures of the library, the state of its link, and strangers' text."""

from __future__ import annotations

import json
import re
from urllib.parse import parse_qs, urlencode
from xml.etree import ElementTree as ET

import pytest

import vramplan
from vramplan.ask.targets import open_catalog, silent
from vramplan.errors import UsageError, VramplanError
from vramplan.page import answers
from vramplan.page.answers import Page, problem_object
from vramplan.page.bars import peak_pieces, rows_of
from vramplan.page.offered import open_models
from vramplan.page.query import LONGEST, MOST_CARDS, SettingError, read_query
from vramplan.report.plan import plan_result
from vramplan.report.serial import check_result
from vramplan.searching import is_search
from vramplan.units import MIB

HOSTILE = [
    "<script>alert(1)</script>",
    "\"'><img src=x onerror=alert(1)>",
    "../../etc/passwd",
    "/etc/passwd",
    "file:///etc/passwd",
    "hf:org/name",
    "ollama:no-such-model:7b",
    "http://127.0.0.1:1/",
    "\x00\x1b[2J\u202e",
    "a" * 900,
]


@pytest.fixture(scope="module")
def page() -> Page:
    return Page(open_models([], silent), is_local=False)


def test_the_figures_are_those_of_the_library(page: Page) -> None:
    found = page.answer("verdicts", "target=sdxl&card=8gb&card=12gb&image=768x768")
    answer = vramplan.check("sdxl", card=["8gb", "12gb"], image="768x768")
    ours = json.loads(json.dumps(check_result(answer.verdicts)))
    for verdict in ours["verdicts"]:
        verdict["advice"] = []  # the page asks for the plan instead
    assert found["result"] == ours
    assert [one["kind"] for one in found["verdicts"]] == [v.kind.value for v in answer.verdicts]
    assert found["shown"] == "8gb", "the first that does not fit is explained"
    assert found["command"] == "vramplan check sdxl --card 8gb --card 12gb --set image=768x768"


def test_the_plan_is_the_library_s_and_its_ways_are_links(page: Page) -> None:
    found = page.answer("plan", "target=sdxl&card=8gb&card=24gb")
    plan = vramplan.plan("sdxl", card="8gb")
    assert found["result"] == plan_result(plan)
    assert [one["lines"] for one in found["options"]] == [
        [change.line for change in option.changes] for option in plan.options
    ]
    for option in found["options"]:
        tried = page.answer("verdicts", option["link"])
        assert tried["verdicts"][0]["kind"] == option["kind"]
        assert tried["verdicts"][0]["need"] == option["need"]
        assert tried["cards"] == ["8gb", "24gb"]


def test_a_link_holds_the_state_and_nothing_that_is_a_default(page: Page) -> None:
    asked = (
        "card=rtx-4090%2Brtx-3060-12gb&card=4gb&target=llava%3A7b&context=8k&kv_type=f16"
        "&margin=512MiB&show=4gb"
    )
    link = page.answer("verdicts", asked)["link"]
    assert parse_qs(link) == {
        "target": ["llava:7b"],
        "card": ["rtx-4090+rtx-3060-12gb", "4gb"],
        "context": ["8192"],
        "margin": ["512MiB"],
        "show": ["4gb"],
    }
    again = page.answer("verdicts", link)
    assert again["link"] == link
    assert again["changed"] == ["context"]


def test_an_empty_link_is_a_question_too(page: Page) -> None:
    found = page.answer("verdicts", "")
    assert found["model"]["name"] == "sd15"
    assert found["cards"] == ["8gb", "12gb"]


def test_every_model_and_card_that_is_offered_is_answered(page: Page) -> None:
    start = page.answer("start", "")
    names = [model["name"] for group in start["models"] for model in group["models"]]
    assert sorted(names) == sorted(open_catalog().pipelines)
    cards = [card["name"] for group in start["cards"] for card in group["cards"]]
    assert {"8gb", "rtx-4060", "h200"} <= set(cards)
    assert "auto" not in cards
    for name in names:
        try:
            found = page.answer("verdicts", urlencode({"target": name, "card": "12gb"}))
        except VramplanError as problem:  # what the library cannot answer, for the same reason
            with pytest.raises(type(problem), match=re.escape(str(problem))):
                vramplan.check(name, card="12gb")
            continue
        assert {one["kind"] for one in found["verdicts"]} <= {"fits", "tight", "offload", "oom"}
        for text in drawings(found):
            ET.fromstring(text)  # noqa: S314  # our own drawings


def drawings(found) -> list[str]:
    budget = found["budget"]
    bars = [budget["bar"], *(row["bar"] for row in budget["rows"])]
    swatches = [one["swatch"] for one in (*budget["legend"], *found["run"]["swatches"])]
    meters = [one["meter"] for one in found["verdicts"]]
    return [
        *bars,
        *swatches,
        *meters,
        *filter(None, [found["run"]["timeline"], found["run"]["narrow"]]),
    ]


def test_no_question_starts_a_recording(page: Page, monkeypatch) -> None:
    asked: list[bool] = []
    judge = answers.judge

    def watch(*words, **options):
        asked.append(is_search())
        return judge(*words, **options)

    monkeypatch.setattr(answers, "judge", watch)
    page.answer("verdicts", "target=sd15&card=8gb&card=12gb")
    assert asked == [True, True]
    assert not is_search()


def test_no_drawing_has_a_style_or_a_script(page: Page) -> None:
    for text in drawings(page.answer("verdicts", "target=sd15&card=8gb")):
        assert "style" not in text
        assert "script" not in text
        assert "href" not in text


@pytest.mark.parametrize("name", ["sdxl", "llava:7b", "log-anomaly-ae"])
def test_the_bars_add_up_to_the_peak(name: str) -> None:
    estimate = vramplan.estimate(name)
    peak = estimate.peak.device.expected_bytes
    for parts in (rows_of(estimate), peak_pieces(estimate)):
        assert abs(sum(part.size_bytes for part in parts) - peak) <= MIB


# ---------------------------------------------------------------------- what is refused
@pytest.mark.parametrize("text", HOSTILE)
@pytest.mark.parametrize("key", ["target", "card", "image", "margin", "mode", "lora", "draft", "x"])
def test_what_a_stranger_types_opens_nothing_and_is_refused_in_words(
    page: Page, key: str, text: str
) -> None:
    asked = {"target": "sd15", "card": "8gb", key: text}
    for question in ("verdicts", "plan"):
        with pytest.raises(VramplanError) as caught:
            page.answer(question, urlencode(asked))
        said = problem_object(caught.value)
        assert len(said["error"]) <= 400
        assert said["key"] == (None if key == "target" else key)


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("stabilityai/stable-diffusion-xl-base-1.0", "sdxl"),
        ("https://huggingface.co/stable-diffusion-v1-5/stable-diffusion-v1-5", "sd15"),
        ("hf:runwayml/stable-diffusion-v1-5", "sd15"),
        ("https://ollama.com/library/llava", "llava:7b"),
        ("stable-diffusion-1.5", "sd15"),
    ],
)
def test_a_model_goes_by_its_names_elsewhere(page: Page, text: str, name: str) -> None:
    found = page.answer("verdicts", urlencode({"target": text, "card": "8gb"}))
    assert found["link"] == urlencode({"target": name, "card": "8gb"}, safe=":")


def test_no_file_is_opened_for_a_target(page: Page, tmp_path, monkeypatch) -> None:
    (tmp_path / "model.gguf").write_bytes(b"GGUF")
    (tmp_path / "mine.yaml").write_text("name: mine\n")
    monkeypatch.chdir(tmp_path)
    for name in ("model.gguf", "./model.gguf", str(tmp_path / "mine.yaml"), "mine.yaml", "."):
        with pytest.raises(UsageError, match="this page has no model"):
            page.answer("verdicts", urlencode({"target": name}))


def test_a_setting_that_names_a_file_is_refused_whatever_the_model() -> None:
    for key in ("lora", "draft", "control_vector"):
        with pytest.raises(SettingError, match="opens no file") as caught:
            Page(open_models([], silent), is_local=True).answer(
                "verdicts", f"target=llava:7b&card=8gb&{key}=x.gguf"
            )
        assert caught.value.key == key


def test_this_machine_s_gpu_is_nobody_else_s(page: Page) -> None:
    for card in ("auto", "AUTO", "auto:all", "auto:0"):
        with pytest.raises(SettingError, match="its machine's GPU"):
            page.answer("verdicts", urlencode({"target": "sd15", "card": card}))


def test_links_are_bounded() -> None:
    with pytest.raises(UsageError, match="too long"):
        read_query("x" * (LONGEST + 1))
    with pytest.raises(UsageError, match="characters are too many"):
        read_query("image=" + "9" * 2000)
    with pytest.raises(UsageError, match="more in it"):
        read_query("&".join(f"a{n}=1" for n in range(200)))
    with pytest.raises(UsageError, match="cards"):
        read_query("&".join(f"card={n}gb" for n in range(MOST_CARDS + 1)))


def test_a_wrong_setting_is_named(page: Page) -> None:
    with pytest.raises(SettingError) as caught:
        page.answer("verdicts", "target=sd15&image=513x513")
    said = problem_object(caught.value)
    assert said["key"] == "image"
    assert "multiples of 8" in said["error"]
    assert "512x512" in said["hint"]


# ---------------------------------------------------------------------- models of one's own
TINY = """\
name: '<script>x</script>'
title: "<b>bold</b> & 'quoted' \\"too\\""
summary: a stranger's file
runtime: llama.cpp
source: made up
settings: {context: 512, ubatch: 512, kv_type: f16, flash_attention: off, gpu_layers: all,
  parallel: 1, engine: b11549, platform: linux}
constraints: {context: {min: 1, max: 4096}}
ggml: {architecture: llama, quantisation: q4_0, layers: 4, embedding: 256, feed_forward: 512,
  heads: 4, kv_heads: 4, vocabulary: 1000, trained_context: 4096}
"""


def test_a_model_that_was_named_is_offered_first_and_its_file_is_not_told(tmp_path) -> None:
    path = tmp_path / "secret-folder"
    path.mkdir()
    path = path / "tiny.yaml"
    path.write_text(TINY.replace("'<script>x</script>'", "tiny:1b"))
    models = open_models([str(path)], silent)
    abroad = Page(models, is_local=False)
    start = abroad.answer("start", "")
    assert start["models"][0]["models"][0]["name"] == "tiny:1b"
    found = abroad.answer("verdicts", "")
    assert found["model"]["name"] == "tiny:1b"
    plan = abroad.answer("plan", "target=tiny:1b&card=8gb")
    assert "secret-folder" not in json.dumps([start, found, plan])
    at_home = Page(models, is_local=True).answer("verdicts", "card=8gb")
    assert "secret-folder" in at_home["command"]


def test_two_models_of_one_name_are_refused(tmp_path) -> None:
    paths = [tmp_path / "one.yaml", tmp_path / "two.yaml"]
    for path in paths:
        path.write_text(TINY.replace("'<script>x</script>'", "tiny:1b"))
    with pytest.raises(UsageError, match="two models are called"):
        open_models([str(path) for path in paths], silent)
