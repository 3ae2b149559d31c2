"""The README's commands are the ones that are run, and its figures the ones that are worked out."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tools.docs import accuracy
from vramplan.catalog import load_catalog
from vramplan.model import VerdictKind
from vramplan.report.colour import SIGNS

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
CI = (ROOT / ".ci" / "run").read_text(encoding="utf-8")


def _commands() -> list[str]:
    blocks = re.findall(r"^```sh\n(.*?)\n```$", README, flags=re.MULTILINE | re.DOTALL)
    return [" ".join(block.split()) for block in blocks]


def test_second_command_installs_and_runs_what_the_continuous_check_does() -> None:
    make, install, run = _commands()[1].split(" && ")
    assert make == "python3 -m venv .venv"
    quiet = "python -m pip install -qq --disable-pip-version-check"
    installed = re.findall(rf"^    {re.escape(quiet)} (-c .*)$", CI, flags=re.MULTILINE)
    assert [install] == [f".venv/bin/pip install {what}" for what in installed]
    tests = re.findall(r"^step 'tests' (.*)$", CI, flags=re.MULTILINE)
    assert [run] == [f".venv/bin/{what}" for what in tests]


def test_first_command_is_the_one_that_the_wheel_is_tried_with() -> None:
    make, install, ask = _commands()[0].split(" && ")
    assert (make, install) == ("python3 -m venv .venv", ".venv/bin/pip install .")
    question = ask.removeprefix(".venv/bin/")
    assert question.startswith("vramplan check ")
    assert f'"$fresh/{question.replace(" ", chr(34) + " ", 1)} ||' in CI


def test_picture_shows_the_first_command() -> None:
    picture = (ROOT / "docs" / "images" / "check.svg").read_text(encoding="utf-8")
    asked = _commands()[0].split(" && ")[-1].removeprefix(".venv/bin/")
    assert f">{asked}</text>" in picture


def test_every_other_command_is_one_that_vramplan_takes() -> None:
    from vramplan.cli import build_parser

    parser = build_parser()
    asked = [words for block in _commands() for words in block.split(".venv/bin/vramplan ")[1:]]
    asked += re.findall(r"`vramplan ([^`]+)`", README)
    assert len(asked) > 4
    for words in asked:
        if not re.search(r"[A-Z]{4}|^(check|record)$", words):  # a placeholder, or the bare name
            parser.parse_args(words.split())


def test_links_lead_somewhere() -> None:
    for target in re.findall(r"\]\(([^)]+)\)", README):
        path, _, heading = target.partition("#")
        assert not path.startswith("http")
        assert (ROOT / path).is_file(), target
        if heading:
            page = (ROOT / path).read_text(encoding="utf-8")
            titles = re.findall(r"^#+ (.*)$", page, flags=re.MULTILINE)
            slugs = [re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles]
            assert heading in slugs, target


def test_every_verdict_is_explained_with_its_sign() -> None:
    for kind in VerdictKind:
        assert f"| {SIGNS[kind]} `{kind.value}` |" in README


def test_table_of_families_is_the_catalogue() -> None:
    section = README.partition("## What is in the catalogue")[2].partition("\n## ")[0]
    listed = dict(re.findall(r"^\| ([^|`]+) \| (.*`.*) \|$", section, flags=re.MULTILINE))
    catalog = load_catalog(())
    assert set(listed) == {pipeline.family for pipeline in catalog.pipelines.values()}
    for family, examples in listed.items():
        for name in re.findall(r"`([a-z0-9.:-]+)`", examples):
            assert catalog.pipeline(name).family == family


def test_page_of_pipelines_is_the_catalogue() -> None:
    from tools.docs import pipelines
    from tools.docs.page import replace_generated

    page = pipelines.PAGE.read_text(encoding="utf-8")
    assert replace_generated(page, pipelines.MODULE, pipelines.render()) == page, (
        "run: python -m tools.docs.pipelines"
    )


@pytest.fixture(scope="module")
def fresh() -> dict[Path, str]:
    return accuracy.fresh_pages()


@pytest.mark.parametrize("page", ["README.md", "accuracy.md", "what-vram-is-spent-on.md"])
def test_tables_of_figures_are_the_ones_worked_out(fresh: dict[Path, str], page: str) -> None:
    path = next(path for path in fresh if path.name == page)
    assert path.read_text(encoding="utf-8") == fresh[path], "run: python -m tools.docs.accuracy"


def test_explanation_of_four_images_at_once_holds(fresh: dict[Path, str]) -> None:
    """What the prose says of the table: half copies within 3 %, whole ones above."""
    table = next(text for path, text in fresh.items() if path.name == "what-vram-is-spent-on.md")
    rows = {
        cells[1].strip(): [float(cell.split()[0]) for cell in cells[2:4] if "GiB" in cell]
        for cells in (line.split("|") for line in table.splitlines())
        if len(cells) == 5 and "GiB" in cells[2]
    }
    published = next(peaks for title, peaks in rows.items() if "15.8 GiB" in title)
    assert rows["ours for 7.0: half copies"] == pytest.approx(published, rel=0.03)
    assert rows["ours for 8.6: whole copies"][1] > 1.05 * published[1]
    assert rows["ours without any scratch"][1] < published[1]


def test_a_page_without_its_marker_lines_is_an_error() -> None:
    with pytest.raises(ValueError, match="marker"):
        accuracy.replace_table("# By hand\n", "| a |")
