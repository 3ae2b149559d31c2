"""``vramplan estimate``: the budget in every format, and which architecture it is for."""

from __future__ import annotations

import re

import pytest

QUICK = ("estimate", "llava:7b")


def test_json_has_the_contracts_fields(run, validate) -> None:
    result = run(*QUICK, "--json")
    assert (result.code, result.err) == (0, "")
    validate(result.json)
    assert result.json["command"] == "estimate"
    budget = result.json["result"]
    assert budget["pipeline"] == "llava:7b"
    assert budget["runtime"] == "ollama"
    assert budget["settings"]["context"] == 4096
    assert budget["layers"] == {"total": 33, "on_gpu": 33, "experts_on_cpu": 0}
    # 2 x 32 layers x 8 KV heads x 128 x 4096 tokens x 2 bytes
    assert budget["buffers"]["kv_cache_bytes"] == 2 * 32 * 8 * 128 * 4096 * 2
    assert [part["name"] for part in budget["components"]] == [
        "language_model",
        "vision_encoder",
        "projector",
    ]
    for bound in ("low_bytes", "bytes", "high_bytes"):
        device = {"low_bytes": "device_low_bytes", "bytes": "device_bytes"}.get(
            bound, "device_high_bytes"
        )
        assert sum(term[bound] for term in budget["terms"]) == budget["peak"][device]


def test_without_a_card_the_architecture_is_assumed_and_said(run) -> None:
    budget = run(*QUICK, "--json").json["result"]
    assert budget["compute_capability"] == "8.6"
    assert budget["notes"][0] == (
        "compute capability 8.6 is assumed, with an RTX 3060's multiprocessors: no card was named"
    )
    assert "compute capability 8.6 is assumed" in run(*QUICK).out


def test_with_a_card_the_architecture_is_its_own(run) -> None:
    budget = run(*QUICK, "--card", "rtx-4070", "--json").json["result"]
    assert budget["compute_capability"] == "8.9"
    assert not any("capability" in note for note in budget["notes"])


def test_with_a_class_the_architecture_that_needs_most_is_named(run) -> None:
    budget = run(*QUICK, "--card", "8gb", "--json").json["result"]
    worst = budget["compute_capability"]
    needs = {
        card: run(*QUICK, "--card", card, "--json").json["result"]["need"]["bytes"]
        for card in ("gtx-1070", "rtx-2070", "rtx-3070-ti", "rtx-4060", "rtx-5060")
    }
    assert budget["need"]["bytes"] == max(needs.values())
    assert budget["notes"][0].startswith(f"of the cards' architectures, compute capability {worst}")


def test_table_draws_the_line_of_each_card(run) -> None:
    result = run(*QUICK, "--card", "8gb", "--card", "rtx-4070")
    assert (result.code, result.err) == (0, "")
    for title in ("components", "budget", "the budget at its peak", "phases", "buffers", "notes"):
        assert f"\n{title}\n" in result.out, title
    assert "8gb: " in result.out
    assert "rtx-4070: " in result.out
    assert "rtx-4070: " not in run(*QUICK, "--card", "8gb").out


def test_markdown(run) -> None:
    result = run(*QUICK, "--format", "markdown")
    assert (result.code, result.err) == (0, "")
    assert result.out.startswith("## llava:7b")
    assert re.search(r"\| term +\| where +\|", result.out)


def test_html(run, tmp_path) -> None:
    result = run(*QUICK, "--card", "8gb", "-o", "budget.html")
    assert (result.code, result.out) == (0, "")
    page = (tmp_path / "budget.html").read_text(encoding="utf-8")
    assert page.lstrip().lower().startswith("<!doctype html>")
    assert "<svg" in page
    assert "<script" not in page


def test_settings(run) -> None:
    budget = run(*QUICK, "--context", "8192", "--set", "parallel=2", "--json").json["result"]
    assert (budget["settings"]["context"], budget["settings"]["parallel"]) == (8192, 2)


def test_auto_is_this_machines_gpu(run, driver, gpu) -> None:
    driver(gpu(capability=(7, 5)))
    budget = run(*QUICK, "--card", "auto", "--json").json["result"]
    assert budget["compute_capability"] == "7.5"
    assert "auto: " in run(*QUICK, "--card", "auto").out


def test_auto_without_a_gpu_is_3(run) -> None:
    result = run(*QUICK, "--card", "auto")
    assert (result.code, result.out) == (3, "")
    assert result.error.startswith("no NVIDIA driver")


@pytest.mark.parametrize("words", [["--margin", "1GiB"], ["--fail-on", "tight"], ["--together"]])
def test_what_only_a_verdict_has_is_refused(run, words) -> None:
    result = run(*QUICK, *words)
    assert result.code == 2
    assert result.error == f"unknown option '{words[0]}'"
