"""``vramplan serve`` as a process: the address, the page behind it, and its end."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def start(tmp_path, *words: str) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        [sys.executable, "-m", "vramplan", "serve", "--port", "0", *words],
        cwd=tmp_path,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.skipif(sys.platform == "win32", reason="Windows sends no SIGINT to a process alone")
@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGTERM])
def test_it_serves_until_ctrl_c_and_ends_quietly(tmp_path, ending: signal.Signals) -> None:
    process = start(tmp_path)
    try:
        url = process.stdout.readline().strip()
        assert re.fullmatch(r"http://127\.0\.0\.1:[0-9]+/", url)
        asked = f"{url}answer/verdicts?target=sd15&card=8gb"
        with urllib.request.urlopen(asked) as reply:  # noqa: S310  # http, as was just checked
            assert json.load(reply)["verdicts"][0]["kind"] == "fits"
        process.send_signal(ending)
        out, err = process.communicate(timeout=20)
    finally:
        process.kill()
    assert (process.returncode, out) == (0, "")
    assert err == "the page is there until Ctrl-C\n"


@pytest.mark.parametrize("port", ["70000", "-1", "http", "8080.5", "²"])
def test_a_port_that_is_none_is_refused(run, port: str) -> None:
    result = run("serve", f"--port={port}")
    assert (result.code, result.out) == (2, "")
    assert "is no port" in result.error


def test_a_model_nobody_knows_is_refused_before_anything_is_served(run) -> None:
    result = run("serve", "no-such-model", "--port", "0")
    assert (result.code, result.out) == (2, "")
    assert "no-such-model" in result.error
