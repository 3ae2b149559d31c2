"""``vramplan report``: one page, and the same in the other formats."""

from __future__ import annotations

import sys

import pytest

from vramplan.ask import check

TWO = ("report", "llava:7b", "llava-v1.5-7b")


def test_the_page_holds_every_pipeline_and_card(run, tmp_path) -> None:
    result = run(*TWO, "-o", "fit.html")
    assert (result.code, result.out, result.err) == (0, "", "wrote fit.html\n")
    page = (tmp_path / "fit.html").read_text(encoding="utf-8")
    assert page.lstrip().lower().startswith("<!doctype html>")
    for word in ("llava:7b", "llava-v1.5-7b", "8gb", "12gb", "<svg"):
        assert word in page, word
    for foreign in ("<script", "<link", "@import", "src="):
        assert foreign not in page, foreign
    assert "vramplan report llava:7b llava-v1.5-7b -o fit.html" in page


def test_html_is_what_goes_into_a_pipe(run) -> None:
    result = run(*TWO)
    assert (result.code, result.err) == (0, "")
    assert result.out.lstrip().lower().startswith("<!doctype html>")


def test_a_page_is_not_written_to_a_terminal(run, monkeypatch) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    result = run(*TWO)
    assert (result.code, result.out) == (2, "")
    assert result.error == "a page of HTML is not for a terminal"
    assert result.hint.endswith("-o fit.html")


@pytest.mark.usefixtures("tmp_path")
def test_what_does_not_fit_is_a_report_too(run) -> None:
    assert run("report", "llava:7b", "--card", "4gb", "-o", "fit.html").code == 0


def test_json_has_verdicts_and_estimates(run) -> None:
    result = run(*TWO, "--card", "24gb", "--json")
    assert (result.code, result.err) == (0, "")
    found = result.json["result"]
    assert [verdict["pipeline"] for verdict in found["verdicts"]] == ["llava:7b", "llava-v1.5-7b"]
    for verdict, estimate in zip(found["verdicts"], found["estimates"], strict=True):
        assert verdict["pipeline"] == estimate["pipeline"]
        assert verdict["need_bytes"] == estimate["need"]["bytes"]


@pytest.mark.parametrize(
    ("name", "start"),
    [("fit.md", "## Will it fit?"), ("fit.txt", "Both models fit on 8gb and 24gb.")],
)
def test_text_has_the_verdicts_and_each_budget_once(run, tmp_path, name: str, start: str) -> None:
    assert run(*TWO, "--card", "8gb", "--card", "24gb", "-o", name).code == 0
    text = (tmp_path / name).read_text(encoding="utf-8")
    assert text.startswith(start)
    assert text.count("KV cache") >= 2
    heading = "### Budget\n" if name == "fit.md" else "\nbudget\n"
    assert text.count(heading) == 2
    for once in ("Both models fit", "LLaVA 1.6 on Mistral", "LLaVA 1.5 on Vicuna"):
        assert text.count(once) == 1, once
    components = "### Components\n" if name == "fit.md" else "\ncomponents\n"
    assert text.count(components) == text.count("7,241,732,096") + 1 == 2


def test_without_a_target_it_is_the_whole_catalogue(run, monkeypatch, tiny) -> None:
    """Judging is left out here: what is asked for is what matters, and it takes long."""
    asked = {}

    def answer(question, _progress):
        asked["settings"] = {job.pipeline.name: job.settings for job in question.jobs}
        asked["cards"] = [choice.label for choice in question.choices]
        return check.Answer(verdicts=(), estimates=())

    monkeypatch.setattr(check, "answer", answer)
    assert run("report", "--context", "1024", "--catalog", tiny.parent, "-o", "fit.html").code == 0
    assert {"sd15", "sdxl", "llava:7b", "tiny:1b"} <= set(asked["settings"])
    assert asked["cards"] == ["8gb", "12gb"]
    # a setting is for those that have it
    assert asked["settings"]["llava:7b"]["context"] == 1024
    assert "context" not in asked["settings"]["sd15"]


def test_a_setting_that_a_named_target_does_not_have_is_refused(run) -> None:
    result = run("report", "sd15", "llava:7b", "--context", "1024", "-o", "fit.html")
    assert result.code == 2
    assert result.error == "sd15 has no setting 'context'"


def test_without_a_target_a_projects_is_read(run, tmp_path) -> None:
    own = tmp_path / "ours"
    (own / "cards").mkdir(parents=True)
    (own / "cards/mine.yaml").write_text(MINE, encoding="utf-8")
    text = "targets: [llava:7b, 'llava:7b[context=8192]']\ncards: [my-card]\ncatalog: ours\n"
    (tmp_path / "vramplan.yaml").write_text(text + "margin: 1GiB\n", encoding="utf-8")
    told = run("report", "--json")
    assert (told.code, told.err) == (0, "")
    asked = run("check", "--json").json["result"]["verdicts"]
    assert told.json["result"]["verdicts"] == asked
    assert [one["card"] for one in asked] == ["my-card"] * 2


MINE = """\
cards:
- {name: my-card, title: Mine, kind: consumer, class_gib: 9, total_bytes: 9663676416,
   reserved_bytes: 0, compute_capability: "8.6", bandwidth_bytes_per_s: 1000000000,
   source: mine, aliases: []}
"""


def test_all_is_the_catalogue_beside_a_project_too(run, tmp_path, monkeypatch) -> None:
    (tmp_path / "vramplan.yaml").write_text("targets: [sd15]\ncards: [8gb]\n", encoding="utf-8")
    asked = []

    def answer(question, _progress):
        asked.append(question)
        return check.Answer(verdicts=(), estimates=())

    monkeypatch.setattr(check, "answer", answer)
    assert run("report", "--all", "-o", "fit.html").code == 0
    assert len(asked[0].jobs) > 100
    assert run("report", "sd15", "--all").error == "--all is every pipeline"
