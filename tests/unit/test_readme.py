"""The README's commands are the ones that are run, and its figures the ones that are worked out."""

from __future__ import annotations

import re
from pathlib import Path

import generate_accuracy
import pytest
from generated import replace_generated

from vramplan.catalog import load_catalog
from vramplan.estimate.replayed import conditions_at
from vramplan.estimate.torch_run import find_tape
from vramplan.model import VerdictKind
from vramplan.report.colour import SIGNS
from vramplan.tape.allocator import CachingAllocator
from vramplan.tape.format import read_tape
from vramplan.tape.replay import Replay
from vramplan.units import GIB

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
CI = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
SPENT = (ROOT / "docs" / "what-vram-is-spent-on.md").read_text(encoding="utf-8")

#: rows of the README's table and the published figure that each is about
ACCURACY = {
    "SD 1.5, bf16, A100, peak of live memory": "sd15-a100-bf16-sdpa",
    "the same without fused attention": "sd15-a100-bf16",
    "SD 1.5's architecture, fp16, with safety checker, A10G": "sd15-a10g-fp16",
    "SDXL, 1024×1024, bf16, A100": "sdxl-a100-bf16-sdpa",
    "SD 1.5's VAE, decoding 1024×1024, reserved above the weights, RTX 4090": (
        "invokeai-decode-reserved-1024"
    ),
    "llava:7b in Ollama, compute buffer at 2,048 tokens": "ollama-2706-compute",
}


@pytest.fixture(scope="module")
def published() -> dict[str, generate_accuracy.Row]:
    return {row.name: row for row in generate_accuracy.read_rows()}


def _commands() -> list[str]:
    return re.findall(r"^```sh\n(.*?)\n```$", README, flags=re.MULTILINE)


def _cells(row: str, page: str) -> list[str]:
    line = next(line for line in page.splitlines() if line.startswith(f"| {row} |"))
    return [cell.strip() for cell in line.strip("|").split("|")][1:]


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
    asked = [command.split("vramplan ", 1)[1] for command in _commands() if "/vramplan " in command]
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


def test_table_of_pipelines_is_the_catalogue() -> None:
    listed = re.findall(r"^\| `([^`]+)` \| .* \| ([\w.]+).* \|$", README, flags=re.MULTILINE)
    catalog = load_catalog(())
    assert dict(listed) == {
        name: {"ollama": "Ollama"}.get(pipeline.runtime, pipeline.runtime)
        for name, pipeline in catalog.pipelines.items()
    }


@pytest.mark.parametrize("row", ACCURACY)
def test_figures_are_the_ones_worked_out(
    row: str, published: dict[str, generate_accuracy.Row]
) -> None:
    known = published[ACCURACY[row]]
    sizes = [
        generate_accuracy.size(known.published_bytes),
        generate_accuracy.size(known.ours_bytes),
    ]
    assert _cells(row, README) == sizes


def test_accuracy_page_is_up_to_date() -> None:
    page = generate_accuracy.PAGE.read_text(encoding="utf-8")
    fresh = replace_generated(page, generate_accuracy.SCRIPT, generate_accuracy.render())
    assert fresh == page, "run: python docs/generate_accuracy.py"


@pytest.mark.parametrize(
    ("row", "compute_capability"),
    [
        ("ours without any scratch", "6.1"),
        ("ours for 7.0: half copies", "7.0"),
        ("ours for 8.6: whole copies", "8.6"),
    ],
)
def test_explained_figures_of_four_images_are_the_ones_worked_out(
    row: str, compute_capability: str
) -> None:
    catalog = load_catalog(())
    pipeline = catalog.pipeline("sd15")
    tape = read_tape(find_tape(pipeline, catalog.folders))
    peaks = []
    for batch in (1, 4):
        settings = {**pipeline.defaults, "batch": batch}
        conditions = conditions_at(pipeline, settings, compute_capability, tape)
        run = Replay(tape, conditions, CachingAllocator())
        run.load()
        run.run()
        peaks.append(f"{run.trace.allocated_peak_bytes / GIB:.3f} GiB")
    assert _cells(row, SPENT) == peaks
