"""`import vramplan`: what is public, what it costs to import, and what the functions answer."""

from __future__ import annotations

import ast
import doctest
import functools
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import vramplan
from vramplan.ask import library
from vramplan.errors import UsageError
from vramplan.model import VerdictKind
from vramplan.units import MIB

ROOT = Path(__file__).parents[2]


def test_all_is_exactly_what_the_package_says_is_public() -> None:
    tree = ast.parse((ROOT / "vramplan" / "__init__.py").read_text())
    (block,) = (node for node in tree.body if isinstance(node, ast.If))
    imported = [alias.asname for node in block.body for alias in node.names]  # type: ignore[attr-defined]  # an import
    assert sorted(vramplan.__all__) == vramplan.__all__
    assert set(vramplan.__all__) == set(imported) == set(vramplan._HOMES)
    for name in vramplan.__all__:
        assert getattr(vramplan, name).__doc__, name
    with pytest.raises(AttributeError, match="no attribute 'chek'"):
        vramplan.chek  # noqa: B018  # asking for it is the test


def test_importing_the_package_imports_none_of_it() -> None:
    code = (
        "import json, sys, vramplan; print(json.dumps([m for m in sys.modules if 'vramplan' in m]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, cwd=ROOT)
    assert json.loads(done.stdout) == ["vramplan"]


@pytest.fixture(scope="module")
def ranking() -> object:
    """Return what runs on a card of 8 GB, which docstrings and the page both ask."""
    return vramplan.fit(card="8gb")


@pytest.fixture
def ranked(ranking, monkeypatch) -> None:
    """Let the same be asked again, and nothing else."""

    @functools.wraps(library.fit)
    def again(*, card: str) -> object:
        assert card == "8gb"
        return ranking

    monkeypatch.setattr(library, "fit", again)
    monkeypatch.setattr(vramplan, "fit", again, raising=False)


@pytest.mark.usefixtures("ranked")
def test_the_examples_in_the_docstrings_are_so() -> None:
    found = doctest.testmod(library)
    assert (found.attempted > 3, found.failed) == (True, 0)


@pytest.mark.usefixtures("ranked")
def test_the_examples_on_the_page_are_so() -> None:
    found = doctest.testfile(str(ROOT / "docs" / "library.md"), module_relative=False)
    assert (found.attempted > 8, found.failed) == (True, 0)


def test_the_library_answers_as_the_command_does() -> None:
    words = ["check", "sd15", "llava:7b", "--card", "12gb", "--margin", "500MiB", "--json"]
    command = [sys.executable, "-m", "vramplan", *words]
    done = subprocess.run(command, capture_output=True, check=True, cwd=ROOT)
    told = json.loads(done.stdout)["result"]["verdicts"]
    answer = vramplan.check("sd15", "llava:7b", card="12gb", margin="500MiB")
    assert [one.need.expected_bytes for one in answer.verdicts] == [v["need_bytes"] for v in told]
    assert [one.budget_bytes for one in answer.verdicts] == [v["budget_bytes"] for v in told]
    assert not answer.is_failure()
    assert answer.is_failure(VerdictKind.FITS)


def test_settings_are_values_or_their_text() -> None:
    for image in ("640x512", (640, 512)):
        job = vramplan.open_target("sd15", image=image, vae_tiling=True, batch=2)
        assert job.settings["image"] == (640, 512)
        assert (job.settings["vae_tiling"], job.settings["batch"]) == ("on", 2)
    larger = vramplan.estimate("sd15", card="rtx-3060-12gb", batch=2)
    assert larger.need.band.expected_bytes > vramplan.estimate("sd15").need.band.expected_bytes


def test_what_nobody_knows_is_an_error_that_says_so() -> None:
    with pytest.raises(UsageError, match="unknown pipeline 'sd51'"):
        vramplan.check("sd51", card="8gb")
    with pytest.raises(UsageError, match="no target"):
        vramplan.check(card="8gb")
    with pytest.raises(vramplan.VramplanError, match="unknown card"):
        vramplan.estimate("sd15", card="potato")


def test_without_a_card_the_answer_says_which_were_judged(monkeypatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    answer = vramplan.check("log-anomaly-ae")
    assert answer.remarks
    assert answer.verdicts


def test_side_by_side_needs_add_up() -> None:
    answer = vramplan.check("sd15", "llava:7b", card="24gb", together=True, other=0)
    (both,) = answer.verdicts
    needs = sum(one.need.band.expected_bytes for one in answer.estimates)
    assert both.need.expected_bytes == needs > 8000 * MIB


@pytest.mark.parametrize(
    ("card", "code", "out", "err"),
    [
        ("24gb", 0, {"image": "1024x1024"}, ""),
        ("8gb", 0, {"image": "1024x1024", "offload": "model"}, "pipe.enable_model_cpu_offload()"),
        ("700MiB", 1, None, "sdxl does not fit: fails in load at "),
        ("rtx-3061", 1, None, "unknown card 'rtx-3061'"),
    ],
)
def test_the_preflight_of_the_page_is_twenty_lines_and_runs(tmp_path, card, code, out, err) -> None:
    page = (ROOT / "docs" / "preflight.md").read_text(encoding="utf-8")
    (program,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    assert sum(bool(line.strip()) for line in program.splitlines()) <= 20
    (tmp_path / "app.py").write_text(program, encoding="utf-8")
    words = [sys.executable, "app.py", card]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        words, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == code, done.stderr
    assert (ast.literal_eval(done.stdout) if done.stdout else None) == out
    assert err in done.stderr
    assert "Traceback" not in done.stderr
