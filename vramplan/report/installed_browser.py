"""A page as PDF or PNG, through a browser of Chromium's family that is installed.

It gets a profile of its own that goes with it, no network, and a time to be done in.
"""

from __future__ import annotations

import os
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from vramplan.errors import MissingError, UsageError
from vramplan.report.cropped_png import crop_png

#: names the browser, or a script that starts it
VARIABLE = "VRAMPLAN_BROWSER"
#: how long it may take for one try; a cold start on a busy machine takes ten seconds
PATIENCE_S = 60

_NAMES = (
    "chromium",
    "chromium-browser",
    "google-chrome",
    "google-chrome-stable",
    "chrome",
    "microsoft-edge",
    "microsoft-edge-stable",
    "msedge",
    "brave-browser",
    "brave",
)
#: where they are installed without being on PATH
_PLACES = (
    "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
    "/Applications/Chromium.app/Contents/MacOS/Chromium",
    "/Applications/Microsoft Edge.app/Contents/MacOS/Microsoft Edge",
    "{ProgramFiles}/Google/Chrome/Application/chrome.exe",
    "{ProgramFiles(x86)}/Google/Chrome/Application/chrome.exe",
    "{LocalAppData}/Google/Chrome/Application/chrome.exe",
    "{ProgramFiles(x86)}/Microsoft/Edge/Application/msedge.exe",
    "{ProgramFiles}/Microsoft/Edge/Application/msedge.exe",
)
#: nothing but the page is wanted: no first steps, no updates, no word to anywhere
_OPTIONS = (
    "--headless",
    "--disable-gpu",
    "--disable-extensions",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-default-apps",
    "--disable-sync",
    "--no-first-run",
    "--no-default-browser-check",
    "--host-resolver-rules=MAP * ~NOTFOUND",
)
#: the height of the window in pixels of the page, and how many of the screen each is: a picture is
#: as sharp as one of 16,384 pixels, the most that browsers draw, can be
_WINDOWS = ((3000, 2), (8000, 2), (16000, 1))
_WIDTH = 1080


def find_browser() -> str:
    """Return the browser to print with. Raises MissingError, which says what to install."""
    named = os.environ.get(VARIABLE)
    if named:
        found = shutil.which(named)
        if found is None:
            raise MissingError(
                f"{VARIABLE}: no such program: {named}", hint="leave it out, or mend it"
            )
        return found
    found = next((place for name in _NAMES if (place := shutil.which(name))), None)
    found = found or next((place for place in _known_places() if Path(place).is_file()), None)
    if found is None:
        raise MissingError(
            "a PDF or a picture is printed by Chromium, Chrome or Edge, and none is installed",
            hint=f"install chromium, or name a browser in {VARIABLE}; -o fit.html needs none",
        )
    return found


def _known_places() -> Iterator[str]:
    for place in _PLACES:
        with suppress(KeyError):
            yield place.format_map(os.environ)


def print_page(page: str, chosen: str) -> bytes:
    """Return an HTML page as ``pdf`` or ``png``.

    Raises MissingError without a browser, UsageError where it fails or takes too long, and for a
    picture of a page that is longer than a picture can be.
    """
    browser = find_browser()
    with tempfile.TemporaryDirectory(prefix="vramplan-", ignore_cleanup_errors=True) as folder:
        source = Path(folder) / "page.html"
        source.write_text(page, encoding="utf-8")
        if chosen == "pdf":
            target = Path(folder) / "page.pdf"
            _run(browser, ["--no-pdf-header-footer", f"--print-to-pdf={target}"], source)
            return _checked(target, begin=b"%PDF-", end=b"%%EOF")
        for height, scale in _WINDOWS:
            target = Path(folder) / f"page-{height}.png"
            size = [f"--window-size={_WIDTH},{height}", f"--force-device-scale-factor={scale}"]
            _run(browser, [*size, "--hide-scrollbars", f"--screenshot={target}"], source)
            whole = _checked(target, begin=b"\x89PNG\r\n\x1a\n", end=b"IEND")
            try:
                cropped = crop_png(whole)
            except (ValueError, struct.error, zlib.error) as problem:
                raise UsageError("the browser has made no picture", hint=_hint()) from problem
            if cropped is not None:
                return cropped
    raise UsageError(
        "the page is longer than a picture can be",
        hint="print it with -o fit.pdf, or name fewer pipelines or cards",
    )


def _checked(target: Path, *, begin: bytes, end: bytes) -> bytes:
    """Return what the browser has written, if it is what it was asked for and whole."""
    made = target.read_bytes() if target.is_file() else b""
    if not made.startswith(begin) or end not in made[-64:]:
        raise UsageError("the browser has made no whole file", hint=_hint())
    return made


def _run(browser: str, options: Sequence[str], source: Path) -> None:
    """Run the browser on a page, and everything it starts to its end."""
    profile = source.parent / "profile"
    words = [browser, *_OPTIONS, f"--user-data-dir={profile}", *options]
    if sys.platform != "win32" and os.geteuid() == 0:
        words.append("--no-sandbox")  # for root there is none; the page runs no script
    said = source.parent / "said.txt"
    with said.open("wb") as log, _ended(words, source.as_uri(), log.fileno()) as process:
        try:
            code = process.wait(PATIENCE_S)
        except subprocess.TimeoutExpired as problem:
            what = f"{browser}: has not printed the page within {PATIENCE_S} s"
            raise UsageError(what, hint=_hint()) from problem
    if code != 0:
        last = said.read_text(encoding="utf-8", errors="replace")[-4000:].strip().splitlines()
        why = last[-1] if last else "it says nothing"
        raise UsageError(f"{browser}: exit code {code}: {why}", hint=_hint())


@contextmanager
def _ended(words: Sequence[str], address: str, log: int) -> Iterator[subprocess.Popen[bytes]]:
    """Give the process that runs `words`; whatever it has started ends with it."""
    with subprocess.Popen(
        [*words, address],
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=log,
        start_new_session=True,
    ) as process:
        try:
            yield process
        finally:
            if sys.platform == "win32":
                process.kill()
            else:
                with suppress(ProcessLookupError, PermissionError):
                    os.killpg(process.pid, signal.SIGKILL)


def _hint() -> str:
    return f"{VARIABLE} names another browser, or a script that starts one; -o fit.html needs none"
