"""The man page says what the parser says, and nothing in it is a request to roff."""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tools.docs import man
from tools.docs.command_line import visible

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def page() -> str:
    return man.render_commands()


def test_every_command_and_option_is_there(page: str) -> None:
    from vramplan.cli import COMMANDS, build_parser

    for name in COMMANDS:
        assert f".SS vramplan {name}\n" in page
    for action in visible(build_parser()):
        assert all(option.replace("-", "\\-") in page for option in action.option_strings)
    for option in (r"\-\-override\-tensor", r"\-\-card CARD", r"\-\-force", r"\-\-replay RUN"):
        assert (option in page) is (option != r"\-\-override\-tensor")
    for heading in ("NAME", "SYNOPSIS", "DESCRIPTION", "EXIT STATUS", "ENVIRONMENT"):
        assert f".SH {heading}\n" in page


def test_it_is_ascii_and_each_line_is_a_request_of_ours_or_text(page: str) -> None:
    page.encode("ascii")
    requests = {line.split(" ")[0] for line in page.splitlines() if line.startswith((".", "'"))}
    assert requests <= {
        ".TH", ".nh", ".ad", ".SH", ".SS", ".B", ".PP", ".TP", ".RS", ".RE", ".br"
    }  # fmt: skip


def test_what_would_be_a_request_is_text() -> None:
    evil = ".so /etc/passwd\n'\\\\.sy reboot \\fB \x1b[2J \u202e<b>é`.so x`"
    parser = argparse.ArgumentParser(prog="tool", description=evil, epilog=evil)
    parser.add_argument("--evil", metavar=".so", help=evil.replace("%", "%%"))
    page = man.render(parser, ".so 1", {".so": evil})
    requests = {line.split(" ")[0] for line in page.splitlines() if line.startswith((".", "'"))}
    assert requests <= {".TH", ".nh", ".ad", ".SH", ".SS", ".B", ".PP", ".TP", ".RS", ".RE", ".br"}
    page.encode("ascii")
    assert "\x1b" not in page
    escapes = set(re.findall(r"\\(?:\[u[0-9A-F]{4,6}\]|.(?:aq)?)", page))
    assert {one[:2] for one in escapes} <= {"\\e", "\\-", "\\(", "\\`", "\\f", "\\&", "\\["}


GROFF = shutil.which("groff")


@pytest.mark.skipif(GROFF is None, reason="no groff here")
def test_groff_finds_nothing_wrong_and_the_lines_fit(page: str) -> None:
    done = subprocess.run(
        [GROFF, "-man", "-ww", "-Tutf8", "-P-c", "-rLL=78n"],
        input=page, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stderr == ""
    shown = re.sub(r".\x08", "", done.stdout)
    assert "--card CARD" in shown
    assert "TARGET …" in shown
    assert "rtx-3060-12gb" in shown
    assert "NAME" in shown


def test_the_build_needs_nothing_but_python_for_it(tmp_path: Path) -> None:
    code = (
        f"import sys; sys.path.insert(0, {str(ROOT)!r}); import hatch_build; "
        "print(hatch_build.man_page().read_text(encoding='ascii').splitlines()[0])"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", code], capture_output=True, text=True, cwd=tmp_path,
        check=False,
    )  # fmt: skip
    assert done.stdout.startswith(".TH VRAMPLAN 1 "), done.stderr
