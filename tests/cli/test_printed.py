"""A page as PDF and PNG: through a browser that is installed, or one line that says what to do."""

from __future__ import annotations

import os
import shutil
import struct
import subprocess
import sys
import time
import zlib
from pathlib import Path

import pytest

from vramplan.report import installed_browser

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="the browsers here are scripts")

QUICK = ("report", "log-anomaly-ae", "--card", "8gb")

#: prints what it is asked for, and leaves in its profile what browsers do
BROWSER = """#!/bin/sh
for word in "$@"; do
  case $word in
    --user-data-dir=*) mkdir -p "${word#*=}/Default"; touch "${word#*=}/Default/History" ;;
    --print-to-pdf=*) target=${word#*=} ;;
    file://*) page=${word#file://} ;;
  esac
done
grep -c "Content-Security-Policy" "$page" >"$SEEN"
printf '%%PDF-1.4\\n%s\\n%%%%EOF\\n' "$*" >"$target"
"""


@pytest.fixture
def browser(tmp_path_factory, monkeypatch):
    """Install a browser that is a script of `text`; its temporary folders are in `scratch`."""
    home = tmp_path_factory.mktemp("browser")
    scratch = home / "scratch"
    scratch.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(scratch))
    monkeypatch.setenv("SEEN", str(home / "seen"))

    def install(text: str) -> Path:
        script = home / "browser.sh"
        script.write_text(text)
        script.chmod(0o755)
        monkeypatch.setenv(installed_browser.VARIABLE, str(script))
        return scratch

    return install


def test_a_pdf_is_what_the_browser_prints_of_the_page(run, tmp_path, browser) -> None:
    scratch = browser(BROWSER)
    result = run(*QUICK, "-o", "fit.pdf")
    assert (result.code, result.out, result.err) == (0, "", "wrote fit.pdf\n")
    printed = (tmp_path / "fit.pdf").read_text()
    assert printed.startswith("%PDF-1.4\n")
    for option in ("--headless", "--host-resolver-rules=MAP * ~NOTFOUND", "--no-first-run"):
        assert option in printed
    # it is our own page that was printed, and the profile went with it
    assert Path(os.environ["SEEN"]).read_text() == "1\n"
    assert list(scratch.iterdir()) == []


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("#!/bin/sh\necho first\necho no sandbox >&2\nexit 3", "exit code 3: no sandbox"),
        ("#!/bin/sh\nexit 1", "exit code 1: it says nothing"),
        ("#!/bin/sh\nexit 0", "the browser has made no whole file"),
        (BROWSER.replace("%%%%EOF", ""), "the browser has made no whole file"),
        (BROWSER.replace("%%PDF", "<html>"), "the browser has made no whole file"),
    ],
)  # fmt: skip
def test_a_browser_that_fails_leaves_nothing(run, tmp_path, browser, text, said) -> None:
    scratch = browser(text)
    (tmp_path / "fit.pdf").write_text("old")
    result = run(*QUICK, "-o", "fit.pdf", "--force")
    assert (result.code, result.out) == (2, "")
    assert result.error.endswith(said)
    assert installed_browser.VARIABLE in result.hint
    assert (tmp_path / "fit.pdf").read_text() == "old"
    assert list(scratch.iterdir()) == []
    assert [one.name for one in tmp_path.iterdir()] == ["fit.pdf"]


def test_a_browser_that_hangs_is_ended_with_all_it_has_started(
    run, tmp_path, browser, monkeypatch
) -> None:
    pid = tmp_path / "pid"
    scratch = browser(f"#!/bin/sh\nsleep 600 & echo $! >{pid}\nwait\n")
    monkeypatch.setattr(installed_browser, "PATIENCE_S", 0.3)
    result = run(*QUICK, "-o", "fit.pdf")
    assert result.code == 2
    assert result.error.endswith("has not printed the page within 0.3 s")
    assert list(scratch.iterdir()) == []
    assert not (tmp_path / "fit.pdf").exists()
    for _ in range(50):
        state = Path(f"/proc/{pid.read_text().strip()}/stat")
        if not state.exists() or state.read_text().split()[2] == "Z":
            break
        time.sleep(0.02)
    else:
        pytest.fail("what the browser started runs on")


def test_without_a_browser_it_says_what_to_install(run, monkeypatch) -> None:
    """Before anything is computed."""
    monkeypatch.delenv(installed_browser.VARIABLE, raising=False)
    monkeypatch.setattr(shutil, "which", lambda _name: None)
    monkeypatch.setattr(installed_browser, "_PLACES", ())
    monkeypatch.setattr("vramplan.ask.check.answer", lambda *_: pytest.fail("it was computed"))
    result = run(*QUICK, "-o", "fit.pdf")
    assert result.code == 3
    assert "none is installed" in result.error
    assert "chromium" in result.hint
    monkeypatch.setenv(installed_browser.VARIABLE, "no-such-browser")
    result = run(*QUICK, "-o", "fit.png")
    assert (result.code, result.error) == (3, "VRAMPLAN_BROWSER: no such program: no-such-browser")


@pytest.mark.parametrize("name", ["chromium", "google-chrome", "msedge"])
def test_a_browser_is_found_by_its_name(monkeypatch, name: str) -> None:
    monkeypatch.delenv(installed_browser.VARIABLE, raising=False)
    monkeypatch.setattr(shutil, "which", lambda found: f"/bin/{name}" if found == name else None)
    assert installed_browser.find_browser() == f"/bin/{name}"


@pytest.mark.parametrize("words", [("--format", "pdf"), ("--format", "png", "-o", "-")])
def test_what_is_printed_goes_into_a_file(run, browser, words) -> None:
    browser(BROWSER)
    result = run(*QUICK, *words)
    assert (result.code, result.out) == (2, "")
    assert result.error.endswith("goes into a file")


def _picture(rows: list[int], blank: int) -> bytes:
    """Return a PNG of one grey level a row, and blank rows below, as libpng filters them."""
    width = 20
    raw = b"".join(b"\0" + bytes([level]) * width for level in rows)
    raw += b"\0" + b"\xff" * width + (b"\2" + b"\0" * width) * (blank - 1)

    def chunk(kind: bytes, body: bytes) -> bytes:
        return (
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        )

    head = struct.pack(">IIBBBBB", width, len(rows) + blank, 8, 0, 0, 0, 0)
    middle = chunk(b"sRGB", b"\0") + chunk(b"IDAT", zlib.compress(raw)[:30])
    middle += chunk(b"IDAT", zlib.compress(raw)[30:])
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + middle + chunk(b"IEND", b"")


def test_a_picture_ends_below_the_page() -> None:
    import io

    image = pytest.importorskip("PIL.Image")
    from vramplan.report.cropped_png import crop_png

    rows = [n % 250 for n in range(300)]
    cropped = crop_png(_picture(rows, 400))
    assert cropped is not None
    found = image.open(io.BytesIO(cropped))
    assert found.size[1] == pytest.approx(300 + 48, abs=3)
    assert [found.getpixel((5, y)) for y in range(300)] == rows
    assert found.getpixel((5, 310)) == 255
    # a page that goes on below the window has no blank at its end
    assert crop_png(_picture(rows, 10)) is None
    for broken in (b"", b"\x89PNG\r\n\x1a\n", _picture(rows, 400)[:60], b"GIF89a"):
        with pytest.raises((ValueError, zlib.error)):
            crop_png(broken)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("chromium") is None, reason="no chromium here")
def test_chromium_prints_three_pipelines_on_five_pages(tmp_path) -> None:
    root = Path(__file__).parents[2]
    words = [sys.executable, "-m", "vramplan", "report", "sd15", "sdxl", "llava:7b"]
    environment = {**os.environ, "PYTHONPATH": str(root), installed_browser.VARIABLE: "chromium"}
    for name in ("fit.pdf", "fit.png"):
        done = subprocess.run(
            [*words, "-o", name], cwd=tmp_path, env=environment, capture_output=True, check=False
        )
        assert done.returncode == 0, done.stderr
    printed = (tmp_path / "fit.pdf").read_bytes()
    assert 1 <= printed.count(b"/Type /Page\n") <= 5
    width, height = struct.unpack(">II", (tmp_path / "fit.png").read_bytes()[16:24])
    assert width == 2160
    assert 3000 < height < 16000
