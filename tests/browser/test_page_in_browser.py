"""The page in a real browser: knobs, links, keys, phones, strangers' text, and who is asked."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import parse_qs, quote, urlsplit

import pytest

import vramplan
from vramplan.report import phrases, plain

pytestmark = pytest.mark.browser

#: what the page is looked at as: width, height, colours
LOOKS = {
    "wide light": (1280, 900, "light"),
    "wide dark": (1280, 900, "dark"),
    "phone light": (360, 740, "light"),
    "phone dark": (360, 740, "dark"),
}
LINK = "?target=sdxl&card=8gb&card=12gb&card=rtx-4090"

Open = Callable[..., Any]


@pytest.fixture
def open_page(chromium, address) -> Iterator[Open]:
    """Open the page at a link, as one of LOOKS; whatever it complains of fails the test."""
    contexts, wrong = [], []

    def open_it(link: str = LINK, look: str = "wide light", *, waits: bool = True) -> Any:
        width, height, colours = LOOKS[look]
        context = chromium.new_context(
            viewport={"width": width, "height": height}, color_scheme=colours
        )
        context.grant_permissions(["clipboard-read", "clipboard-write"], origin=address)
        contexts.append(context)
        page = context.new_page()
        page.on("request", lambda one: one.url.startswith(address) or wrong.append(one.url))
        page.on("pageerror", lambda one: wrong.append(str(one)))
        page.on("dialog", lambda one: wrong.append(one.message))
        page.on("console", lambda one: is_told(one) and wrong.append(one.text))
        page.goto(address + link)
        if waits:
            settle(page)
        return page

    yield open_it
    for context in contexts:
        context.close()
    assert wrong == []


def is_told(message) -> bool:
    """Whether the console's line is more than that a question was refused, as the page shows."""
    is_refusal = message.text.startswith("Failed to load resource")
    return message.type in {"error", "warning"} and not is_refusal


def settle(page) -> None:
    """Wait until all that was asked is answered."""
    page.wait_for_selector("#plan .lead")
    page.locator("[aria-busy]").first.wait_for(state="detached")


def state(page) -> dict[str, list[str]]:
    return parse_qs(urlsplit(page.url).query)


def words(page) -> list[str]:
    return page.locator("#verdicts .word").all_inner_texts()


def focused(page) -> str:
    return page.evaluate("document.activeElement.id || document.activeElement.innerText")


# ------------------------------------------------------------------------- what it shows
def test_verdicts_and_figures_are_the_library_s(open_page) -> None:
    page = open_page()
    answer = vramplan.check("sdxl", card=["8gb", "12gb", "rtx-4090"])
    assert words(page) == [plain.verdict(verdict.kind) for verdict in answer.verdicts]
    needs = page.locator("#verdicts .needs").all_inner_texts()
    for verdict, said in zip(answer.verdicts, needs, strict=True):
        assert phrases.need(verdict.need.expected_bytes) in said
        assert phrases.available(verdict.budget_bytes) in said
    assert answer.verdicts[0].reason in page.inner_text("#reason")
    plan = vramplan.plan("sdxl", card="8gb")
    assert [text.strip() for text in page.locator(".option pre").all_inner_texts()] == [
        "\n".join(change.line for change in option.changes) for option in plan.options
    ]


def test_a_knob_changes_verdict_and_link_and_a_link_brings_it_back(open_page) -> None:
    page = open_page("?target=sdxl&card=12gb")
    assert words(page) == ["~ Only just fits"]
    slider = page.get_by_label("image, by steps")
    slider.focus()
    for _ in range(4):
        slider.press("ArrowLeft")
    settle(page)
    assert page.input_value("#knob-image") == "768x768"
    assert words(page) == ["✓ Fits"]
    assert state(page) == {"target": ["sdxl"], "card": ["12gb"], "image": ["768x768"]}
    again = open_page("?" + urlsplit(page.url).query)
    assert words(again) == ["✓ Fits"]
    assert again.input_value("#knob-image") == "768x768"
    again.get_by_role("button", name="reset image to 1024x1024").click()
    settle(again)
    assert state(again) == {"target": ["sdxl"], "card": ["12gb"]}


def test_every_kind_of_knob_turns(open_page) -> None:
    page = open_page("?target=llava:7b&card=8gb")
    page.get_by_role("radio", name="q8_0").check()
    page.fill("#knob-context", "16k")
    page.locator("#knob-context").press("Enter")
    settle(page)
    page.click("#more > summary")
    page.fill("#room-margin", "1GiB")
    page.locator("#room-margin").press("Enter")
    settle(page)
    expected = {"context": ["16384"], "kv_type": ["q8_0"], "margin": ["1GiB"]}
    assert state(page) == {"target": ["llava:7b"], "card": ["8gb"], **expected}
    page.click("#reset")
    settle(page)
    assert state(page) == {"target": ["llava:7b"], "card": ["8gb"]}


def test_what_is_being_typed_stays_while_another_answer_comes(open_page) -> None:
    page = open_page("?target=llava:7b&card=8gb")
    page.get_by_role("radio", name="q8_0").check()
    page.fill("#knob-context", "8k")
    settle(page)
    assert page.input_value("#knob-context") == "8k"
    page.locator("#knob-context").press("Enter")
    settle(page)
    assert page.input_value("#knob-context") == "8192"
    assert state(page)["kv_type"] == ["q8_0"]


def test_a_way_is_tried_and_back_returns(open_page) -> None:
    page = open_page("?target=sdxl&card=8gb")
    page.get_by_role("button", name="Try it").first.click()
    settle(page)
    assert words(page) == ["✓ Fits"]
    assert state(page)["offload"] == ["model"]
    page.go_back()
    page.locator("#verdicts .word").filter(has_text="Does not fit").wait_for()
    assert "offload" not in state(page)


def test_lines_and_the_link_are_copied(open_page) -> None:
    page = open_page("?target=sdxl&card=8gb")
    page.get_by_role("button", name="copy the lines").first.click()
    page.get_by_text("Copied").wait_for()
    clipboard = "navigator.clipboard.readText()"
    assert page.evaluate(clipboard) == "pipe.enable_model_cpu_offload()"
    page.click("#copy-link")
    page.locator("#copy-link").filter(has_text="Copied").wait_for()
    assert page.evaluate(clipboard) == page.url


def test_cards_are_added_removed_and_chosen(open_page) -> None:
    page = open_page("?target=sdxl&card=8gb")
    page.fill("#card", "rtx-4090")
    page.press("#card", "Enter")
    settle(page)
    assert state(page)["card"] == ["8gb", "rtx-4090"]
    page.locator("#verdicts .tile").nth(1).click()
    settle(page)
    assert state(page)["show"] == ["rtx-4090"]
    assert page.inner_text("#plan .lead").startswith("rtx-4090: it fits as it is")
    page.get_by_role("button", name="remove rtx-4090").click()
    settle(page)
    assert state(page)["card"] == ["8gb"]
    page.fill("#card", "rtx-9999")
    page.press("#card", "Enter")
    page.get_by_role("alert").filter(has_text="rtx-9999").wait_for()


def test_a_model_is_changed(open_page) -> None:
    page = open_page("?target=sdxl&card=8gb&image=768x768")
    page.select_option("#model", "llava:7b")
    settle(page)
    assert state(page) == {"target": ["llava:7b"], "card": ["8gb"]}
    assert page.locator("#knob-context").is_visible()
    assert page.locator("#knob-image").count() == 0


def test_a_model_is_named_as_the_hub_has_it(open_page) -> None:
    page = open_page("?target=sd15&card=8gb")
    page.fill("#named", "https://huggingface.co/stabilityai/stable-diffusion-xl-base-1.0")
    page.press("#named", "Enter")
    page.locator("#about").filter(has_text="two text encoders").wait_for()
    settle(page)
    assert page.input_value("#model") == "sdxl"
    assert state(page)["target"] == ["sdxl"]


def test_a_wrong_value_is_said_marked_and_put_right(open_page) -> None:
    page = open_page("?target=sd15&card=8gb")
    page.fill("#knob-image", "513")
    page.locator("#knob-image").press("Enter")
    page.get_by_role("alert").filter(has_text="multiples of 8").wait_for()
    assert page.get_attribute("#knob-image", "aria-invalid") == "true"
    page.fill("#knob-image", "520x520")
    page.locator("#knob-image").press("Enter")
    settle(page)
    assert not page.get_by_role("alert").is_visible()
    assert page.get_attribute("#knob-image", "aria-invalid") == "false"


# ------------------------------------------------------------------------- who sees it how
@pytest.mark.parametrize("look", LOOKS)
@pytest.mark.parametrize("link", [LINK, "?target=llava:7b&card=4gb&context=16384"])
def test_axe_finds_nothing(open_page, look: str, link: str) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright")
    page = open_page(link, look)
    page.evaluate("for (const one of document.querySelectorAll('details')) one.open = true")
    page.locator("#details table").first.wait_for()
    rules = {"resultTypes": ["violations"], "runOnly": {"type": "tag", "values": TAGS}}
    found = axe.Axe().run(page, options=rules).response["violations"]
    assert [(one["id"], [node["html"] for node in one["nodes"]]) for one in found] == []


TAGS = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]


@pytest.mark.parametrize("width", [360, 600, 901, 1280])
def test_nothing_is_wider_than_the_page(open_page, width: int) -> None:
    page = open_page()
    page.set_viewport_size({"width": width, "height": 740})
    page.evaluate("for (const one of document.querySelectorAll('details')) one.open = true")
    assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_dark_and_light_are_followed(open_page) -> None:
    colour = "getComputedStyle(document.body).backgroundColor"
    light, dark = (open_page(look=f"wide {one}").evaluate(colour) for one in ("light", "dark"))
    assert light != dark


def test_keys_are_enough(open_page) -> None:
    """Model, cards, a setting, the card that is explained and a way: all without a mouse."""
    page = open_page("?target=sd15&card=8gb&card=12gb")
    page.keyboard.press("Tab")
    assert focused(page) == "Skip to the answer"
    for _ in range(2):
        page.keyboard.press("Tab")
    assert focused(page) == "model"
    page.keyboard.type("Stable Diffusion XL")
    page.keyboard.press("Enter")
    settle(page)
    assert state(page)["target"] == ["sdxl"]
    press_until(page, "Tab", "card")
    page.keyboard.type("24gb")
    page.keyboard.press("Enter")
    settle(page)
    assert state(page)["card"] == ["8gb", "12gb", "24gb"]
    assert focused(page) == "card", "another can be typed"
    press_until(page, "Tab", "knob-batch")
    page.keyboard.press("Tab")
    page.keyboard.press("ArrowRight")
    settle(page)
    assert state(page)["batch"] == ["2"]
    press_until_named(page, "shown")
    page.keyboard.press("ArrowDown")
    settle(page)
    assert state(page)["show"] == ["12gb"]
    assert page.evaluate("document.activeElement.value") == "12gb", "the focus stays"
    press_until(page, "Tab", "Try it")
    page.keyboard.press("Enter")
    settle(page)
    assert words(page)[1] == "✓ Fits"


def press_until(page, key: str, name: str) -> None:
    for _ in range(60):
        page.keyboard.press(key)
        if focused(page) == name:
            return
    raise AssertionError(f"{name} is not reached by {key}")


def press_until_named(page, name: str) -> None:
    for _ in range(60):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.name") == name:
            return
    raise AssertionError(f"{name} is not reached")


# ------------------------------------------------------------------------- misfortune
@pytest.mark.parametrize(
    ("link", "said", "left"),
    [
        (
            "?target=sdxl&card=8gb&image=513",
            "multiples of 8",
            {"target": ["sdxl"], "card": ["8gb"]},
        ),
        ("?target=none&card=8gb&image=512", "no model", {"target": ["sd15"], "card": ["8gb"]}),
        ("?target=sdxl&card=rtx-9999", "rtx-9999", {"target": ["sdxl"], "card": ["8gb", "12gb"]}),
    ],
)
def test_a_wrong_link_says_so_on_a_page_to_put_it_right(open_page, link, said, left) -> None:
    page = open_page(link)
    assert said in page.inner_text("#problem")
    assert state(page) == left
    assert page.locator("#first-knobs .knob").count() > 0


@pytest.mark.parametrize("key", ["target", "card", "image", "margin", "show", "unknown"])
@pytest.mark.parametrize(
    "text",
    ["<script>alert(1)</script>", "\"'><img src=x onerror=alert(1)>", "javascript:alert(1)"],
)
def test_what_a_link_says_is_text(open_page, key: str, text: str) -> None:
    asked = {"target": "sd15", "card": "8gb", key: text}
    link = "?" + "&".join(f"{name}={quote(value)}" for name, value in asked.items())
    page = open_page(link, waits=False)
    page.locator("#problem:not([hidden]), #plan .lead").first.wait_for()
    assert page.locator("img[src='x']").count() == 0
    assert page.locator("main script").count() == 0


def test_ten_thousand_characters_are_refused_in_words(open_page) -> None:
    page = open_page("?target=sd15&card=8gb")
    page.evaluate("document.getElementById('knob-image').maxLength = 100000")
    page.fill("#knob-image", "9" * 10_000)
    with page.expect_response(lambda one: one.status == 414):
        page.locator("#knob-image").press("Enter")
    page.get_by_role("alert").filter(has_text="414").wait_for()


def test_a_server_that_is_gone_is_said(open_page) -> None:
    page = open_page("?target=sd15&card=8gb")
    page.route("**/answer/**", lambda route: route.abort("failed"))
    page.on("console", lambda _: None)
    page.get_by_role("radio", name="bf16").check()
    page.get_by_role("alert").filter(has_text="is gone").wait_for()
