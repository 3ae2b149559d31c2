"""``vramplan plan``: the ways to make it fit, the largest and the smallest that does."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

FORMATS = ("table", "json", "markdown")
SDXL = ("plan", "sdxl", "--card", "rtx-3050-6gb")


def words_of(settings: dict[str, object]) -> list[str]:
    return [word for key, value in settings.items() for word in ("--set", f"{key}={value}")]


def test_each_way_given_back_as_settings_makes_check_say_so(run, validate) -> None:
    done = run(*SDXL, "--json")
    validate(done.json)
    plan = done.json["result"]
    assert done.code == 0
    assert (plan["verdict"], plan["succeeds"]) == ("oom", True)
    assert len(plan["changes"]) > 1
    for way in plan["changes"]:
        again = run("check", "sdxl", "--card", "rtx-3050-6gb", "--json", *words_of(way["settings"]))
        (found,) = again.json["result"]["verdicts"]
        assert found["verdict"] == way["verdict"] == "fits"
        assert found["need_bytes"] == way["need_bytes"]
        assert way["saving_bytes"] == plan["need_bytes"] - found["need_bytes"]
        assert way["line"] == "; ".join(way["lines"])
        assert way["slowdown"] > 0
    prices = [way["price"] for way in plan["changes"]]
    assert prices == sorted(prices)
    assert any(way["is_on_front"] for way in plan["changes"])


def test_check_advises_the_first_way(run) -> None:
    first = run(*SDXL, "--json").json["result"]["changes"][0]
    (verdict,) = run("check", *SDXL[1:], "--json").json["result"]["verdicts"]
    (advice,) = verdict["advice"]
    assert (advice["change"], advice["need_bytes"]) == (first["line"], first["need_bytes"])


@pytest.mark.parametrize("width", [80, 120])
def test_a_line_to_type_is_never_broken(run, width, monkeypatch) -> None:
    """However narrow the terminal: it is copied from there."""
    plan = run(*SDXL, "--json").json["result"]
    monkeypatch.setattr("vramplan.commands.output.FILE_WIDTH", width)
    done = run(*SDXL)
    lines = done.out.splitlines()
    typed = {line for way in plan["changes"] for line in way["lines"]}
    for line in typed:
        assert any(shown.removeprefix("1. ").strip().endswith(line) for shown in lines), line
    assert [line for line in lines if len(line) > width and not any(t in line for t in typed)] == []
    assert "it fits in" in done.out
    assert "memory against time" in done.out


@pytest.mark.parametrize("format_", FORMATS)
@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("sd15", "--card", "rtx-4060"), 0),
        (("llava:7b", "--card", "rtx-3050-6gb"), 0),
        (("llava:7b", "--card", "rtx-3050-laptop"), 1),
        (("log-anomaly-ae", "--card", "4gb", "--mode", "train"), 0),
    ],
)
def test_every_format_says_it(run, validate, words, code, format_) -> None:
    done = run("plan", *words, "--format", format_)
    assert (done.code, done.err) == (code, "")
    if format_ == "json":
        validate(done.json)
        assert done.json["result"]["succeeds"] is (code == 0)
    else:
        assert words[0].replace(":", "") in done.out.replace("\\", "").replace(":", "")


def test_what_cannot_fit_says_by_how_much_it_misses(run) -> None:
    done = run("plan", "llava:7b", "--card", "4gb")
    assert "it cannot be made to fit: with everything below it misses by" in done.out
    assert "OLLAMA_KV_CACHE_TYPE=q4_0" in done.out
    plan = run("plan", "llava:7b", "--card", "4gb", "--json").json["result"]
    assert plan["changes"] == []
    assert plan["missing_bytes"] > 0
    assert plan["everything"]["verdict"] == "oom"
    assert plan["nearest"]


def test_a_language_model_with_nothing_to_change_is_told_what_else_people_do(run) -> None:
    done = run("plan", "gpt-oss-20b", "--card", "2GiB")
    assert "it cannot be made to fit: no setting is left to change" in done.out
    assert "not tried: weights in 8 or 4 bits" in done.out
    assert "not tried: a .gguf file of it" in done.out


def test_a_class_that_old_cards_are_of_says_whose_plan_it_is(run) -> None:
    """24 GB cards begin with the Tesla P40, whose attention writes out all scores of a video."""
    done = run("plan", "wan2.2-t2v-a14b", "--card", "24gb")
    words = " ".join(done.out.split())
    assert "that is for compute capability 6.1: name your card where it is another" in words
    named = run("plan", "wan2.2-t2v-a14b", "--card", "rtx-4090").out
    assert "it fits in" in named
    assert "name your card" not in named


def test_the_page_shows_what_is_printed(run) -> None:
    page = (Path(__file__).parents[2] / "docs" / "planning.md").read_text(encoding="utf-8")
    shown = page.partition("```text\n")[2].partition("```")[0]
    assert shown == run(*SDXL).out


# ------------------------------------------------------------------------------------------- sizes
def test_the_largest_of_a_size_alone(run, validate) -> None:
    done = run("plan", "sd15", "--card", "4gb", "--max", "image")
    assert (done.code, done.err) == (0, "")
    found = run("plan", "sd15", "--card", "4gb", "--max", "image", "--json")
    validate(found.json)
    result = found.json["result"]
    assert done.out.startswith(f"image {result['largest']['image']} (needs ")
    assert result["changes"] == []
    assert result["largest"]["batch"] is None
    words = ("check", "sd15", "--card", "4gb", "--json", "--image")
    assert (
        run(*words, result["largest"]["image"]).json["result"]["verdicts"][0]["verdict"] == "fits"
    )


def test_tight_is_good_enough_where_that_is_asked(run) -> None:
    words = ("plan", "sd15", "--card", "4gb", "--max", "image", "--json", "--accept")
    fits, tight = (run(*words, word).json["result"]["largest"] for word in ("fits", "tight"))
    assert int(fits["image"].partition("x")[0]) < int(tight["image"].partition("x")[0])


def test_what_fails_is_said(run) -> None:
    """By the best that there is: as it is, or with a change."""
    words = ("plan", "llava:7b", "--card", "4gb", "--fail-on")
    assert [run(*words, kind).code for kind in ("tight", "offload", "oom")] == [1, 1, 0]
    words = ("plan", "sd15", "--card", "6gb", "--image", "1024", "--fail-on")
    assert run("check", *words[1:6]).out.count("tight") >= 1
    assert run(*words, "tight").code == 0  # tiles make it fit


def test_where_not_even_the_smallest_fits(run) -> None:
    done = run("plan", "sdxl", "--card", "4gb", "--max", "image")
    assert (done.code, done.out) == (1, "image: none fits\n")
    found = run("plan", "sdxl", "--card", "4gb", "--max", "image", "--json").json["result"]
    assert (found["largest"]["image"], found["succeeds"]) == (None, None)


# ------------------------------------------------------------------------------------ side by side
def test_each_way_side_by_side_makes_check_say_so(run, validate) -> None:
    words = ("llava:7b[context=16384]", "sd15", "--together", "--card", "10gb", "--json")
    done = run("plan", *words)
    validate(done.json)
    plan = done.json["result"]
    assert (done.code, plan["verdict"], plan["succeeds"]) == (0, "oom", True)
    assert plan["target"] == "llava:7b[context=16384] + sd15"
    for way in plan["changes"]:
        again = run("check", *way["targets"], "--together", "--card", "10gb", "--json")
        (found,) = again.json["result"]["verdicts"]
        assert (found["verdict"], found["need_bytes"]) == (way["verdict"], way["need_bytes"])
        assert all("." in key for key in way["settings"])
    changed = {key.partition(".")[0] for way in plan["changes"] for key in way["settings"]}
    assert changed == {"sd15", "llava:7b"}  # the planner may change any of them
    prices = [way["price"] for way in plan["changes"]]
    assert prices == sorted(prices)
    assert plan["smallest"]["class"] == "12gb"


def test_check_says_which_plan_comes_next(run) -> None:
    """And what it says can be given: with all that was asked."""
    words = ("llava:7b[context=8192]", "sd15", "--together", "--card", "8gb", "--margin", "100MiB")
    last = run("check", *words).out.splitlines()[-1]
    assert last == (
        "next  vramplan plan 'llava:7b[context=8192]' sd15 --together --card 8gb --margin 100MiB"
    )
    assert run(*shlex.split(last)[2:]).code in (0, 1)
    alone = run("check", "sd15", "llava:7b", "--card", "8gb", "--card", "4gb").out.splitlines()
    assert [line for line in alone if line.startswith("next")] == [
        "next  vramplan plan llava:7b --card 4gb",
    ]
    assert "next" not in run("check", "sd15", "--card", "8gb").out
    assert "next" not in run("check", "llava:7b", "--card", "4gb", "--format", "markdown").out


def test_on_a_machine_with_several_gpus_it_can_be_given_too(run, driver, gpu) -> None:
    driver(*(gpu(uuid=f"GPU-{place}", total=4096 << 20) for place in range(2)))
    last = run("check", "llava:7b").out.splitlines()[-1]
    assert last == "next  vramplan plan llava:7b --card auto"
    assert run(*shlex.split(last)[2:]).code in (0, 1)


@pytest.mark.parametrize("format_", FORMATS)
def test_a_project_is_planned_where_it_fails(run, validate, tmp_path, format_) -> None:
    text = "targets: [sdxl, sd15, llava:7b]\ntogether: [[sd15, llava:7b]]\ncards: [8gb]\n"
    (tmp_path / "vramplan.yaml").write_text(text, encoding="utf-8")
    done = run("plan", "--format", format_)
    assert (done.code, done.err) == (0, "")
    if format_ == "json":
        validate(done.json)
        result = done.json["result"]
        assert result["judged"] == 2
        assert [one["pipeline"] for one in result["plans"]] == ["sdxl", "sd15 + llava:7b"]
        return
    assert "as TARGET: 'sdxl[offload=model]'" in done.out
    assert "as TARGETs: " in done.out


# ----------------------------------------------------------------------------------- bad questions
@pytest.mark.parametrize(
    ("words", "error", "hint"),
    [
        (("sd15", "--card", "8gb", "--card", "12gb"), "a plan is for one card", "takes several"),
        (("sd15", "--card", "8gb", "--max", "context"), "sd15 has no context", "image, batch"),
        (("log-anomaly-ae", "--card", "8gb", "--max", "image"), "has no image", "batch"),
        (("sd15", "--card", "99gb"), "no card of the class 99gb", "known classes"),
        (("sd51", "--card", "8gb"), "unknown pipeline 'sd51'", "sd15"),
        (("sd15", "--card", "8gb", "--margin", "7.7GiB"), "are left for the process", "smaller"),
        (("sd15", "--card", "8gb", "--max", "size"), "invalid choice", "plan --help"),
        (("sd15", "sdxl", "--card", "8gb"), "a plan is for one target", "--together plans"),
        (("sd15", "--together", "--card", "8gb"), "takes two targets", "llava:7b --together"),
        (("sd15", "sd15", "--together", "--max", "batch"), "is for one target", "--together"),
        (("--card", "8gb"), "no TARGET, and no vramplan.yaml here", "vramplan init"),
        (("--max", "batch"), "--max batch is for one target", "vramplan plan TARGET"),
    ],
)
def test_a_bad_question_gets_one_line(run, words, error, hint) -> None:
    done = run("plan", *words)
    assert done.code == 2
    assert done.out == ""
    assert error in done.error
    assert hint in done.hint


def test_without_a_card_it_is_this_machines(run, driver, gpu) -> None:
    assert run("plan", "sd15").code == 3
    driver(gpu(name="NVIDIA GeForce RTX 3060", total=12288 << 20, reserved=400 << 20))
    done = run("plan", "sd15", "--json")
    assert done.code == 0
    assert done.json["result"]["card"] == "auto"


def test_it_needs_nothing_heavy() -> None:
    """As `check` does: no torch, numpy, tabulate or Jinja2 for JSON."""
    code = (
        "import sys, json; from vramplan.cli import main;"
        "main(['plan', 'sd15', '--card', '8gb', '--json']);"
        "sys.stderr.write(json.dumps([m for m in ('torch', 'numpy', 'tabulate', 'jinja2', 'yaml')"
        " if m in sys.modules]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
    )
    assert json.loads(done.stderr) == []


def test_the_smallest_card_of_a_project_may_be_its_own(run, tmp_path) -> None:
    own = tmp_path / "ours"
    (own / "cards").mkdir(parents=True)
    card = (
        "cards:\n- {name: my-card, title: Mine, kind: consumer, class_gib: 5, "
        "total_bytes: 5368709120, reserved_bytes: 0, compute_capability: '8.6', "
        "multiprocessors: 20, bandwidth_bytes_per_s: 1000000000, source: mine, aliases: []}\n"
    )
    (own / "cards/mine.yaml").write_text(card, encoding="utf-8")
    text = "targets: ['sd15[image=768x768]']\ncards: [4gb]\ncatalog: ours\n"
    (tmp_path / "vramplan.yaml").write_text(text, encoding="utf-8")
    (plan,) = run("plan", "--json").json["result"]["plans"]
    assert plan["smallest"] == {"class": "5gb", "card": "my-card"}


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (("fit", "--card", "8gb", "--max", "image"), "vramplan plan and vramplan cards"),
        (("check", "sd15", "--pairs"), "vramplan fit"),
    ],
)
def test_an_option_of_another_command_is_said_to_be_so(run, words, hint: str) -> None:
    assert run(*words).hint == f"it is an option of {hint}"
