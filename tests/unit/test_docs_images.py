"""The pictures are what vramplan says today, readable by everybody, and alike wherever drawn."""

from __future__ import annotations

import re
from xml.etree import ElementTree as ET

import pytest

from tools.docs import images, picture_parts, picture_terminal

SVG = "{http://www.w3.org/2000/svg}"
NAMES = sorted(images.PICTURES)


def _shipped(name: str) -> str:
    return (images.IMAGES / name).read_text(encoding="utf-8")


def _parse(text: str) -> ET.Element:
    return ET.fromstring(text)  # noqa: S314  # our own file


@pytest.mark.parametrize("name", NAMES)
def test_picture_is_what_would_be_drawn_now(name: str) -> None:
    fresh = images.PICTURES[name]()
    assert fresh == _shipped(name), "run: python -m tools.docs.images"


def test_no_picture_is_drawn_by_hand() -> None:
    assert sorted(path.name for path in images.IMAGES.iterdir()) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_words_stand_for_the_picture_where_it_cannot_be_seen(name: str) -> None:
    svg = _parse(_shipped(name))
    named = {element.get("id"): element for element in svg.iter() if element.get("id")}
    for identity in svg.attrib["aria-labelledby"].split():
        assert len(named[identity].text or "") > 10
    assert svg.get("role") == "img"


@pytest.mark.parametrize("name", NAMES)
def test_picture_follows_the_reader_into_the_dark(name: str) -> None:
    svg = _parse(_shipped(name))
    style = svg.find(f"{SVG}style")
    assert style is not None
    assert style.text is not None
    light, _, dark = style.text.partition("@media (prefers-color-scheme:dark)")
    ground = re.compile(r"\.(?:page|ground)\{fill:(#[0-9a-f]{6})\}")
    assert _brightness(ground.findall(light)[0]) > 0.9
    assert _brightness(ground.findall(dark)[0]) < 0.15
    used = {word for element in svg.iter() for word in element.get("class", "").split()}
    for css in used:
        assert f".{css}{{" in style.text or f".{css}," in style.text, f"class {css} has no style"


def _brightness(colour: str) -> float:
    return sum(int(colour[first : first + 2], 16) for first in (1, 3, 5)) / 3 / 255


@pytest.mark.parametrize("side", [0, 1], ids=["light", "dark"])
@pytest.mark.parametrize("name", ["text", "soft", "card", "fits", "tight", "offload", "oom"])
def test_letters_can_be_read(name: str, side: int) -> None:
    """WCAG's 4.5 to 1 for text."""
    assert _contrast(picture_parts.COLOURS[name][side], picture_parts.COLOURS["page"][side]) >= 4.5


def _contrast(one: str, other: str) -> float:
    lighter, darker = sorted((_luminance(one), _luminance(other)), reverse=True)
    return (lighter + 0.05) / (darker + 0.05)


def _luminance(colour: str) -> float:
    channels = [int(colour[first : first + 2], 16) / 255 for first in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_terminal_shows_every_word_of_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    from vramplan.cli import main

    words = ["cards", "--format", "table"]
    lines = picture_terminal.capture(words)
    assert main(words) == 0
    piped = capsys.readouterr().out.splitlines()
    assert [picture_terminal.plain(line) for line in lines] == piped
    drawn = _parse(picture_terminal.draw("x", words, lines, "cards"))
    shown = " ".join(text.text or "" for text in drawn.iter(f"{SVG}text"))
    assert shown.split() == ["$", "vramplan", *words, *" ".join(piped).split()]


def test_terminal_keeps_colours_and_columns() -> None:
    line = "\x1b[1mpipeline\x1b[0m  card   \x1b[32m✓ fits\x1b[0m  3,474 MiB"
    pieces = [(p.column, p.text, p.style) for p in picture_terminal.pieces(line)]
    assert pieces == [
        (0, "pipeline", "strong"),
        (10, "card", "plain"),
        (17, "✓ fits", "green"),
        (25, "3,474 MiB", "plain"),
    ]


def test_a_command_that_fails_is_not_drawn() -> None:
    with pytest.raises(RuntimeError, match="ended with 2"):
        picture_terminal.capture(["check", "no-such-pipeline"])


def test_check_mode_names_what_is_out_of_date(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path
) -> None:
    (tmp_path / "old.svg").write_text("<svg>old</svg>", encoding="utf-8")
    monkeypatch.setattr(images, "IMAGES", tmp_path)
    pictures = {"old.svg": lambda: "<svg>new</svg>", "new.svg": lambda: "<svg>new</svg>"}
    monkeypatch.setattr(images, "PICTURES", pictures)
    monkeypatch.setattr("sys.argv", ["images.py", "--check"])
    assert images.main() == 1
    said = capsys.readouterr().err
    assert "old.svg is out of date" in said
    assert "new.svg is out of date" in said
    monkeypatch.setattr("sys.argv", ["images.py"])
    assert images.main() == 0
    monkeypatch.setattr("sys.argv", ["images.py", "--check"])
    assert images.main() == 0
