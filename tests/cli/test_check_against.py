"""``vramplan check --against``: what has changed since an earlier answer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

BASE = "base.json"
MIB = 1 << 20


def keep(run, *words: str) -> None:
    assert run("check", *words, "--json", "-o", BASE).code in (0, 1)


def since(result) -> list[tuple[str, str | None]]:
    return [
        (one["since"]["change"], one["since"]["verdict"])
        for one in result.json["result"]["verdicts"]
    ]


@pytest.mark.parametrize("format_", ["table", "json", "markdown"])
def test_each_verdict_says_what_has_become_of_it(run, validate, format_) -> None:
    then = (
        "llava:7b[context=8192]",
        "log-anomaly-ae[batch=1048576]",
        "vit-mae-base",
        "--card",
        "8gb",
    )
    keep(run, *then)
    words = ("llava:7b", "log-anomaly-ae", "denoising-ae", "--card", "8gb")
    done = run("check", *words, "--against", BASE, "--format", format_)
    if format_ != "json":
        said = done.out.replace("\\", "")
        assert "1 new, 1 as before, 1 better" in said
        assert "judged no more: vit-mae-base on 8gb" in said
        assert "\N{MINUS SIGN}516 MiB, other settings" in said
        assert "since base.json" in said
        if format_ == "markdown":
            assert said.startswith("## since base.json")
        return
    validate(done.json)
    assert since(done) == [("same", "fits"), ("better", "oom"), ("new", None)]
    first, _, new = done.json["result"]["verdicts"]
    assert (
        first["since"]["need_difference_bytes"]
        == first["need_bytes"] - first["since"]["need_bytes"]
    )
    assert new["since"]["need_difference_bytes"] is None
    assert [one["pipeline"] for one in done.json["result"]["gone"]] == ["vit-mae-base"]


def test_without_it_nothing_is_said(run, validate) -> None:
    done = run("check", "llava:7b", "--card", "8gb", "--json")
    validate(done.json)
    assert done.json["result"]["verdicts"][0]["since"] is None
    assert "gone" not in done.json["result"]


@pytest.mark.parametrize(
    ("before", "now", "fail_on", "code"),
    [
        ("log-anomaly-ae", "log-anomaly-ae", "worse", 0),
        ("log-anomaly-ae", "log-anomaly-ae[batch=1048576]", "worse", 1),  # now oom
        ("log-anomaly-ae[batch=1048576]", "log-anomaly-ae", "worse", 0),
        (
            "log-anomaly-ae[batch=1048576]",
            "log-anomaly-ae[batch=1048576]",
            "worse",
            0,
        ),  # red before
        ("log-anomaly-ae[batch=1048576]", "log-anomaly-ae[batch=1048576]", "offload", 1),
        ("vit-mae-base", "log-anomaly-ae[batch=1048576]", "worse", 1),  # new, and does not fit
        ("vit-mae-base", "log-anomaly-ae", "worse", 0),
    ],
)
def test_only_what_has_become_worse_fails_where_that_is_asked(
    run, before, now, fail_on, code
) -> None:
    keep(run, before, "--card", "8gb")
    assert run("check", now, "--card", "8gb", "--against", BASE, "--fail-on", fail_on).code == code


def test_of_several_alike_those_at_the_same_settings_are_compared(run) -> None:
    keep(run, "llava:7b", "llava:7b[context=8192]", "llava:7b[context=2048]", "--card", "8gb")
    words = ("llava:7b[context=2048]", "llava:7b[context=16384]", "llava:7b", "--card", "8gb")
    found = run("check", *words, "--against", BASE, "--json").json["result"]["verdicts"]
    assert [one["since"]["target"] for one in found] == [
        "llava:7b[context=2048]",
        "llava:7b[context=8192]",
        "llava:7b",
    ]


def test_a_projects_names_and_groups_are_compared_by_name(run, tmp_path) -> None:
    path = tmp_path / "vramplan.yaml"
    text = "targets:\n  - {target: llava:7b, name: chat}\n  - llava-v1.5-7b\n"
    path.write_text(text + "together: [[chat, llava-v1.5-7b]]\ncards: [12gb]\n")
    keep(run)
    path.write_text(text.replace("llava:7b", "'llava:7b[context=16384]'") + "cards: [12gb]\n")
    done = run("check", "--against", BASE, "--json").json["result"]
    assert [one["since"]["change"] for one in done["verdicts"]] == ["new", "new"]
    assert [one["pipeline"] for one in done["gone"]] == ["llava:7b + llava-v1.5-7b"]
    keep(run)
    path.write_text(text + "margin: 1GiB\ncards: [12gb]\n")
    shown = " ".join(run("check", "--against", BASE).out.split())
    assert "MiB, budget \N{MINUS SIGN}1,024 MiB, other settings" in shown


def test_less_than_a_mebibyte_is_no_change(run) -> None:
    keep(run, "llava:7b", "--card", "8gb")
    whole = json.loads(Path(BASE).read_text())
    whole["result"]["verdicts"][0]["need_bytes"] -= 1000
    Path(BASE).write_text(json.dumps(whole))
    assert "as before" in run("check", "llava:7b", "--card", "8gb", "--against", BASE).out


def test_an_answer_of_report_will_do_and_an_older_one_too(run) -> None:
    words = ("llava:7b", "--card", "8gb")
    assert run("report", *words, "-o", BASE).code == 0
    whole = json.loads(Path(BASE).read_text())
    for verdict in whole["result"]["verdicts"]:
        for key in ("target", "name", "settings", "since"):
            del verdict[key]
    Path(BASE).write_text(json.dumps(whole))
    assert since(run("check", *words, "--against", BASE, "--json")) == [("same", "fits")]


def broken(change: dict[str, Any]) -> str:
    verdict = {"pipeline": "llava:7b", "card": "8gb", "verdict": "fits", "need_bytes": 1}
    verdict = {**verdict, "budget_bytes": 2, **change}
    return json.dumps({"schema_version": 1, "command": "check", "result": {"verdicts": [verdict]}})


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("", "base.json:1:1: not JSON"),
        ("[]", "not an object of JSON"),
        ("{}", "not the JSON of vramplan check"),
        (
            '{"schema_version": 2, "command": "check", "result": {}}',
            "not the JSON of vramplan check",
        ),
        ('{"schema_version": 1, "command": "check", "result": 3}', "no list of verdicts"),
        ('{"schema_version": 1, "command": "check", "result": {"verdicts": [3]}}', "[0] is no"),
        (broken({"need_bytes": -1}), "result.verdicts[0] is no verdict"),
        (broken({"need_bytes": True}), "result.verdicts[0] is no verdict"),
        (broken({"need_bytes": 1.5}), "result.verdicts[0] is no verdict"),
        (broken({"budget_bytes": "1"}), "result.verdicts[0] is no verdict"),
        (broken({"verdict": "perhaps"}), "result.verdicts[0] is no verdict"),
        (broken({"verdict": ["fits"]}), "result.verdicts[0] is no verdict"),
        (broken({"card": None}), "result.verdicts[0] is no verdict"),
        (broken({"target": 7}), "result.verdicts[0] is no verdict"),
        (broken({"pipeline": "x" * 20_000}), "result.verdicts[0] is no verdict"),
        (broken({"need_bytes": 1 << 70}), "a number that no 64 bits hold"),
    ],
)
def test_what_is_no_answer_is_refused_in_a_line(run, text, error) -> None:
    Path(BASE).write_text(text)
    done = run("check", "llava:7b", "--card", "8gb", "--against", BASE)
    assert (done.code, done.out) == (2, "")
    assert error in done.error
    assert "vramplan check --json -o base.json" in done.hint


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (("--against", "nowhere.json"), "nowhere.json: cannot be read"),
        (("--against", "."), "cannot be read"),
        (("--fail-on", "worse"), "--fail-on worse needs --against"),
        (("--against", BASE, "-o", "x.html"), "--against has no page"),
    ],
)
def test_a_bad_question_gets_one_line(run, words, error) -> None:
    done = run("check", "llava:7b", "--card", "8gb", *words)
    assert (done.code, done.out) == (2, "")
    assert error in done.error


@pytest.mark.parametrize("format_", ["table", "markdown", "json"])
def test_a_strangers_names_do_no_harm(run, format_) -> None:
    name = "<script>alert(1)</script>\x1b[2J|`x`@you"
    Path(BASE).write_text(broken({"pipeline": name, "card": name, "name": name * 20}))
    done = run("check", "llava:7b", "--card", "8gb", "--against", BASE, "--format", format_)
    assert done.code == 0
    assert "\x1b" not in done.out
    if format_ == "markdown":
        assert "<script>" not in done.out
        assert "@you" not in done.out
