"""The compiled core says what its reference says, and there is an answer without it."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from tools.core_check import differs
from tools.core_fuzz import difference
from tools.random_settings import draw
from vramplan.catalog import load_catalog
from vramplan.engines.torch.tape import native

ROOT = Path(__file__).parents[2]
CATALOG = load_catalog()
needs_core = pytest.mark.skipif(native.find_core()[0] is None, reason=native.find_core()[1])


#: tokens that a drawn question generates at most: the reference walks through each of them
MOST_TOKENS = 16


@needs_core
@pytest.mark.parametrize("number", range(24))
def test_every_figure_is_the_references(number: int) -> None:
    """A thousand of them, of any length: python -m tools.core_check --count 1000."""
    drawn = draw(20, number, CATALOG)
    settings = dict(drawn.settings)
    if "new_tokens" in CATALOG.pipeline(drawn.pipeline).defaults:
        settings["new_tokens"] = min(int(settings.get("new_tokens", MOST_TOKENS)), MOST_TOKENS)
    question = replace(drawn, settings=settings)
    assert not differs(question, CATALOG), str(question)


@needs_core
@pytest.mark.parametrize("first", range(0, 1200, 150))
def test_random_runs_and_limits_are_the_references(first: int) -> None:
    """A hundred thousand of them: python -m tools.core_fuzz --count 100000."""
    assert not [found for n in range(first, first + 150) if (found := difference(n))]


def _check(*words: str, core: str) -> str:
    command = f"import sys; from vramplan.cli import main; sys.exit(main({words!r}))"
    environment = {"VRAMPLAN_CORE": core, "PYTHONPATH": str(ROOT), "PATH": ""}
    done = subprocess.run(
        [sys.executable, "-c", command],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stderr == ""
    return done.stdout


@pytest.mark.parametrize(
    "words",
    [
        ("check", "sd15", "--image", "640x576", "--card", "8gb", "--json"),
        ("check", "llava-1.5-7b-hf", "--set", "new_tokens=4", "--card", "16gb", "--json"),
        ("estimate", "vit-mae-base", "--mode", "train", "--card", "rtx-3090", "--json"),
    ],
)
def test_without_the_core_the_answer_is_the_same(words: tuple[str, ...]) -> None:
    """There architectures share their runs in Python."""
    assert _check(*words, core="off") == _check(*words, core="on")


def test_a_core_of_other_sources_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    native.find_core.cache_clear()
    monkeypatch.setattr(native, "sources_checksum", lambda: 1)
    try:
        core, words = native.find_core()
    finally:
        native.find_core.cache_clear()
    assert core is None
    assert "older than its sources" in words or "was not built" in words


def test_a_core_of_other_sources_is_said_once() -> None:
    """A replay in Python takes a hundred times as long: who changes the core wants to know why."""
    given = "native.sources_checksum = lambda: 1" if native.LIBRARY.is_file() else ""
    command = f"""
import sys
from vramplan.engines.torch.tape import native
{given}
from vramplan.cli import main
sys.exit(main(("check", "sd15-vae", "denoising-ae", "--batch", "3", "--card", "8gb", "--no-cache")))
"""
    done = subprocess.run(
        [sys.executable, "-c", command],
        env={"PYTHONPATH": str(ROOT), "PATH": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode in (0, 1)
    said = [line for line in done.stderr.splitlines() if "older than its sources" in line]
    wanted = (
        "note: the compiled core is older than its sources, so replays run in Python, up to a "
        "hundred times slower: build it with 'python hatch_build.py'"
    )
    assert said == ([wanted] if given else [])


def test_what_nobody_hears_is_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native, "find_core", lambda: (None, native._STALE))
    native.say_if_stale.cache_clear()
    with pytest.warns(RuntimeWarning, match="older than its sources"):
        native.say_if_stale()
    native.say_if_stale()  # and not again
    native.say_if_stale.cache_clear()


def test_a_core_that_is_no_library_is_not_used(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "core.so").write_bytes(b"not a library")
    native.find_core.cache_clear()
    monkeypatch.setattr(native, "LIBRARY", tmp_path / "core.so")
    try:
        core, words = native.find_core()
    finally:
        native.find_core.cache_clear()
    assert (core, words.partition(":")[0]) == (None, "cannot be loaded")
