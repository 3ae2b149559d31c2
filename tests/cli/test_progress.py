"""What is shown while work goes on: on a terminal, in a log, and with --quiet."""

from __future__ import annotations

import sys
import time
from argparse import Namespace

import pytest

from vramplan.commands import progress as shown
from vramplan.commands.streams import tell

LOUD, QUIET = Namespace(quiet=False), Namespace(quiet=True)


def wait(seconds: float) -> None:
    time.sleep(seconds)


def test_a_log_gets_a_line_now_and_then_and_none_before(capsys, monkeypatch) -> None:
    monkeypatch.setattr(shown, "_LOG_S", 0.1)
    monkeypatch.setattr(shown, "_PATIENCE_S", 0.05)
    with shown.progress(LOUD, "sweep") as show:
        show("rows", 100, 400)
        assert capsys.readouterr().err == ""
        show("rows", 200, 400)
        wait(0.35)
    lines = capsys.readouterr().err.splitlines()
    assert 1 <= len(lines) <= 4
    assert all(line.startswith("sweep: rows, 200 of 400, 0:00") for line in lines)
    wait(0.15)
    assert capsys.readouterr().err == ""


def test_a_log_is_ten_seconds_apart() -> None:
    assert (shown._LOG_S, shown._PATIENCE_S) == (10.0, 1.0)


def test_a_terminal_has_one_line_that_goes_away(capsys, monkeypatch) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setattr(shown, "_PATIENCE_S", 0.05)
    monkeypatch.setattr(shown, "_REDRAW_S", 0.02)
    with shown.progress(LOUD) as show:
        show("sdxl on 12gb", 1, 4)
        assert capsys.readouterr().err == ""
        wait(0.3)
        drawn = capsys.readouterr().err
        assert drawn.startswith("\r\x1b[2K█████···············")
        assert "1 of 4, 0:00: sdxl on 12gb" in drawn
        tell("note: said meanwhile\n")
        assert "\r\x1b[2Knote: said meanwhile\n" in capsys.readouterr().err
        wait(0.1)
    assert capsys.readouterr().err.endswith("\r\x1b[2K")


def test_quick_work_shows_nothing_on_a_terminal(capsys, monkeypatch) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with shown.progress(LOUD) as show:
        show("sd15 on 8gb", 0, 1)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("is_terminal", [False, True])
def test_quiet_shows_nothing(capsys, monkeypatch, is_terminal) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: is_terminal)
    for begin in (shown.progress, shown.progress_of_steps):
        with begin(QUIET) as show:
            show("something", 1, 2)
    assert capsys.readouterr().err == ""


def test_each_step_of_a_measurement_has_its_line_in_a_log_once(capsys) -> None:
    with shown.progress_of_steps(LOUD) as show:
        for step in ("loading", "loading", "denoising", "loading"):
            show(step)
    assert capsys.readouterr().err.splitlines() == ["loading", "denoising", "loading"]
