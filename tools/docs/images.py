"""Draws the pictures of the README and the documentation from what vramplan itself says.

    python -m tools.docs.images            draw docs/images anew
    python -m tools.docs.images --check    exit 1 where a picture is out of date

No figure is written by hand: a picture changes when the tapes, the catalogue or the models change.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from tools.docs.page import ROOT
from tools.model_files import sparse_module

MODULE = "tools.docs.images"
IMAGES = ROOT / "docs" / "images"


def draw_check() -> str:
    """Return the picture of the README's first command, down to its second pipeline."""
    from tools.docs import picture_terminal as terminal

    words = ("check", "sd15", "llava:7b", "--card", "8gb", "--card", "12gb")
    lines = terminal.capture(words)
    second = next(n for n, one in enumerate(lines) if terminal.plain(one).startswith("llava:7b ·"))
    rest = f"\x1b[2m… {len(lines) - second} more lines: the same for llava:7b\x1b[0m"
    shown = [*lines[: second - 1], "", rest]
    return terminal.draw("check", words, shown, "A verdict for each pipeline and card, and why")


def draw_advice() -> str:
    """Return the picture of a command whose answer is no plain yes, with what would help."""
    from tools.docs import picture_terminal as terminal

    words = ("check", "sdxl", "--card", "12gb")
    return terminal.draw("advice", words, terminal.capture(words), "A verdict, why, and what helps")


def draw_gguf() -> str:
    """Return the picture of a model file on a small card, the real engine beside ours.

    The file has Mistral 7B's header and a hole for its data; the engine is the extra `engine`.
    """
    import os
    import tempfile

    from tools.docs import picture_terminal as terminal

    sparse = sparse_module("sparse_gguf")
    model = sparse.dense_layers(sparse.language_model(layers=32, words=32000))
    model.general["general.name"] = "Mistral 7B"
    words = ("check", "mistral-7b.gguf", "--card", "4GiB", "--engine-check")
    before = Path.cwd()
    with tempfile.TemporaryDirectory() as folder:
        sparse.write(Path(folder) / words[1], model)
        os.chdir(folder)
        try:
            lines = terminal.capture(words)
        finally:
            os.chdir(before)
    return terminal.draw("gguf", words, lines, "A model file on a small card, and llama.cpp's word")


def draw_sd15_timeline() -> str:
    """Return the memory of one SD 1.5 image."""
    from tools.docs.picture_memory import draw_sd15

    return draw_sd15()


def draw_least_limit() -> str:
    """Return one run with room and under its least limit."""
    from tools.docs.picture_memory import draw_least_limit as draw

    return draw()


def draw_budgets() -> str:
    """Return what pipelines need against what two cards offer."""
    from tools.docs.picture_budgets import draw

    return draw()


def draw_attention() -> str:
    """Return how the attention kernel decides the peak."""
    from tools.docs.picture_attention import draw

    return draw()


def draw_tape() -> str:
    """Return how a tape works."""
    from tools.docs.picture_tape import draw

    return draw()


def draw_counts() -> str:
    """Return what each tool counts."""
    from tools.docs.picture_counts import draw

    return draw()


#: every picture by its file's name, and what draws it
PICTURES: Mapping[str, Callable[[], str]] = {
    "check.svg": draw_check,
    "advice.svg": draw_advice,
    "gguf.svg": draw_gguf,
    "sd15-timeline.svg": draw_sd15_timeline,
    "least-limit.svg": draw_least_limit,
    "budgets.svg": draw_budgets,
    "attention.svg": draw_attention,
    "tape.svg": draw_tape,
    "what-each-tool-counts.svg": draw_counts,
}


def stale() -> list[str]:
    """Return the names of the pictures that are not what would be drawn now."""
    return [name for name, draw in PICTURES.items() if _read(name) != draw()]


def _read(name: str) -> str:
    path = IMAGES / name
    return path.read_text(encoding="utf-8") if path.exists() else ""


def main() -> int:
    """Draw the pictures, or with --check only say which are out of date."""
    if "--check" in sys.argv[1:]:
        names = stale()
        for name in names:
            print(f"{name} is out of date: run python -m {MODULE}", file=sys.stderr)
        return int(bool(names))
    IMAGES.mkdir(exist_ok=True)
    for name, draw in PICTURES.items():
        (IMAGES / name).write_text(draw(), encoding="utf-8", newline="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
