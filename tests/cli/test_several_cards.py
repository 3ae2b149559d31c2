"""Several cards as one: every format shows each, errors are one line."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path

import pytest

pytest.importorskip("gguf")

_PATH = Path(__file__).parents[1] / "sparse_gguf.py"
_SPEC = importlib.util.spec_from_file_location("sparse_gguf", _PATH)
sparse = sys.modules.setdefault("sparse_gguf", importlib.util.module_from_spec(_SPEC))
_SPEC.loader.exec_module(sparse)

CARDS = "rtx-4090+rtx-3060-12gb"


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> str:
    made = sparse.language_model(layers=80, embedding=4096, words=32000)
    path = tmp_path_factory.mktemp("models") / "long.gguf"
    return str(sparse.write(path, sparse.dense_layers(made)))


def test_check_shows_a_column_for_each_card(run, model) -> None:
    found = run("check", model, "--card", CARDS, "--set", "parallel=1")
    assert found.code == 0
    heads = next(line for line in found.out.splitlines() if "in host memory" in line)
    assert " ".join(heads.split()) == "gpu 0 rtx-4090 gpu 1 rtx-3060-12gb in host memory"
    for row in ("layers", "model", "KV cache", "compute", "CUDA context", "headroom", "verdict"):
        assert f"\n  {row} " in found.out


def test_json_has_each_card_and_the_worst_decides(run, model, validate) -> None:
    found = run("check", model, "--card", CARDS, "--json")
    result = json.loads(found.out)
    validate(result)
    (verdict,) = result["result"]["verdicts"]
    first, second = verdict["cards"]
    assert (first["device"], first["card"]) == ("gpu 0", "rtx-4090")
    assert (second["device"], second["card"]) == ("gpu 1", "rtx-3060-12gb")
    assert first["layers"] + second["layers"] == verdict["layers"]["total"] == 81
    assert first["layers"] > second["layers"] > 0
    worst = min((first, second), key=lambda one: one["headroom_bytes"])
    assert verdict["need_bytes"] == worst["need_bytes"]
    assert verdict["budget_bytes"] == worst["budget_bytes"]
    for name in ("model_bytes", "kv_cache_bytes", "compute_bytes"):
        assert verdict["buffers"][name] == first["buffers"][name] + second["buffers"][name]


def test_an_estimate_is_of_all_cards_and_says_what_is_on_each(run, model, validate) -> None:
    found = run("estimate", model, "--card", CARDS, "--json")
    result = json.loads(found.out)
    validate(result)
    estimate = result["result"]
    for place, card in enumerate(estimate["cards"]):
        terms = [term for term in estimate["terms"] if term["device"] == f"gpu {place}"]
        assert sum(term["bytes"] for term in terms) == card["need_bytes"]
        assert card["budget_bytes"] is card["verdict"] is None
    assert sum(card["need_bytes"] for card in estimate["cards"]) == estimate["peak"]["device_bytes"]


def test_a_card_of_another_machine_has_a_column_and_is_said_to_come_first(run, model) -> None:
    found = run("check", model, "--card", "rtx-4090+rpc:rtx-3060-12gb", "--json")
    (verdict,) = json.loads(found.out)["result"]["verdicts"]
    assert [one["card"] for one in verdict["cards"]] == ["rtx-4090", "rpc:rtx-3060-12gb"]
    notes = run("estimate", model, "--card", "rtx-4090+rpc:rtx-3060-12gb").out
    assert "this order: rpc:rtx-3060-12gb, rtx-4090" in " ".join(notes.split())
    alone = run("check", model, "--card", "rpc:a100-80gb")
    assert alone.code == 0
    assert "rpc:a100-80gb" in alone.out


def test_one_card_has_none_beside_it(run, model) -> None:
    found = run("check", model, "--card", "rtx-4090", "--json")
    (verdict,) = json.loads(found.out)["result"]["verdicts"]
    assert verdict["cards"] is None


@pytest.mark.parametrize("form", ["markdown", "html"])
def test_other_formats_show_each_card_too(run, model, form) -> None:
    for command in ("check", "report") if form == "markdown" else ("report",):
        found = run(command, model, "--card", CARDS, "--format", form)
        assert "gpu 0 rtx-4090" in found.out
        assert "gpu 1 rtx-3060-12gb" in found.out


def test_what_is_too_large_for_both_says_what_is_where(run, model) -> None:
    found = run("check", model, "--card", "6gb+4gb", "--set", "parallel=1")
    assert found.code == 1
    assert "offload" in found.out
    assert "host memory" in found.out


def test_a_sweep_judges_several_cards_as_check_does(run, model) -> None:
    swept = run("sweep", model, "--card", CARDS, "--format", "csv")
    checked = run("check", model, "--card", CARDS, "--json")
    head, row = (line.split(",") for line in swept.out.splitlines())
    (verdict,) = json.loads(checked.out)["result"]["verdicts"]
    told = dict(zip(head, row, strict=True))
    assert told["verdict"] == verdict["verdict"]
    assert int(told["need_bytes"]) == verdict["need_bytes"]
    assert int(told["budget_bytes"]) == verdict["budget_bytes"]


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (("llava-1.5-7b-hf", "--card", "2xrtx-3090"), "device_map=auto over several cards"),
        (("MODEL", "--card", "2xrtx-309"), "'rtx-309' is in several cards' names"),
        (("MODEL", "--card", "+"), "not a list of cards"),
        (("MODEL", "--card", "2xrtx-3090", "--set", "split_mode=row"), "split_mode=row: "),
        (("MODEL", "--card", "2xrtx-3090", "--set", "tensor_split=0/0"), "no card has a share"),
        (("MODEL", "--card", "2xrtx-3090", "--set", "tensor_split=a"), "not a list of shares"),
        (("MODEL", "--card", "rtx-3090", "--set", "main_gpu=1"), "main_gpu=1: there is one card"),
        (("MODEL", "--card", "8gb", "--set", "override_tensor=a=CUDA1"), "there is no CUDA1"),
        (("sd15", "--card", "rpc:24gb"), "a torch pipeline runs on a card of its own machine"),
        (("MODEL", "--card", "8gb+rpc:nobody"), "unknown card 'nobody'"),
        (("MODEL", "--card", "8gb", "--set", "override_tensor=a(=CPU"), "is no pattern"),
        (("MODEL", "MODEL", "--together", "--card", "2xrtx-3090"), "side by side on several"),
    ],
)
def test_what_is_not_planned_is_one_line(run, model, arguments, problem) -> None:
    words = [model if word == "MODEL" else word for word in arguments]
    found = run("check", *words)
    assert found.code == 2
    assert found.out == ""
    assert problem in found.error


def test_torch_is_judged_on_one_of_several_cards_and_says_so(run) -> None:
    several, one = (
        json.loads(run("check", "sd15", "--card", card, "--json").out)["result"]["verdicts"][0]
        for card in ("2xrtx-3090", "rtx-3090")
    )
    assert "on one of the 2 cards (rtx-3090), for torch runs it on one" in several["reason"]
    for key in ("verdict", "need_bytes", "need_high_bytes", "budget_bytes", "headroom_bytes"):
        assert several[key] == one[key]


def test_torch_takes_the_card_with_most_room(run) -> None:
    found = run("check", "sd15", "--card", "8gb+rtx-3090+rpc:80gb", "--json")
    (verdict,) = json.loads(found.out)["result"]["verdicts"]
    assert "on one of the 3 cards (rtx-3090)" in verdict["reason"]
    swept = run("sweep", "sd15", "--card", "8gb+rtx-3090+rpc:80gb", "--format", "csv")
    head, row = (line.split(",") for line in swept.out.splitlines())
    assert int(dict(zip(head, row, strict=True))["budget_bytes"]) == verdict["budget_bytes"]


@pytest.mark.parametrize("command", ["estimate", "report"])
def test_torch_on_several_cards_is_answered_by_every_command(run, command) -> None:
    several, one = (run(command, "sd15", "--card", card) for card in ("2xrtx-3090", "rtx-3090"))
    assert several.code == one.code == 0
    assert several.out


def test_what_patterns_move_is_said(run, model) -> None:
    found = run(
        "estimate", model, "--set", r"override_tensor=blk\.[0-4]\.ffn=CPU", "--gpu-layers", "all"
    )
    assert "parts of 5 on the CPU" in found.out
    assert "override_tensor: 20 tensors of " in found.out
    plain = run("estimate", model, "--gpu-layers", "all")
    assert "override_tensor" not in plain.out


def test_a_batch_above_what_is_taken_at_once_is_cut_and_that_is_said(run, model) -> None:
    cut = run("estimate", model, "--set", "ubatch=4096", "--json").json["result"]
    told = run("estimate", model, "--set", "ubatch=2048", "--json").json["result"]
    assert cut["peak"] == told["peak"]
    assert any("2,048 tokens at once" in note for note in cut["notes"])
    raised = run("estimate", model, "--set", "ubatch=4096", "--set", "batch_tokens=4096", "--json")
    assert raised.json["result"]["peak"]["device_bytes"] > told["peak"]["device_bytes"]


def test_the_largest_context_of_several_cards_is_the_largest(run, model) -> None:
    asked = ("--card", "rtx-3060-12gb+8gb", "--set", "gpu_layers=all", "--set", "parallel=1")
    found = run("plan", model, *asked, "--max", "context", "--json")
    assert found.code == 0
    most = json.loads(found.out)["result"]["largest"]["context"]
    assert 4096 < most < 32768
    for tokens, fits in ((most, True), (most + 2048, False)):
        judged = run("check", model, *asked, "--set", f"context={tokens}", "--json")
        (verdict,) = json.loads(judged.out)["result"]["verdicts"]
        assert (verdict["verdict"] == "fits") == fits


def test_a_fit_on_several_cards_reads_one_after_the_other(run, model) -> None:
    """A token takes as long as on one card of the kind that has room for it."""

    def speed(card: str) -> str:
        found = run("fit", str(Path(model).parent), "--only-folders", "--card", card, "--json")
        return json.loads(found.out)["result"]["models"][0]["pace"]

    assert speed("2xa100-80gb") == speed("a100-80gb")


def test_what_is_remembered_is_what_is_worked_out(run, model, tmp_path, monkeypatch) -> None:
    """A key holds the cards, their shares and the patterns, or one answer would be another's."""
    monkeypatch.setenv("VRAMPLAN_CACHE", str(tmp_path))
    asked = [
        ("--card", CARDS),
        ("--card", CARDS, "--set", "tensor_split=1/1"),
        ("--card", CARDS, "--set", "override_tensor=ffn_down=CUDA1"),
        ("--card", CARDS, "--set", "override_tensor=ffn_up=CPU"),
        ("--card", "rtx-4090"),
        ("--card", "rtx-4090", "--set", "override_tensor=ffn_up=CPU"),
        ("--card", "rtx-4090", "--set", "embedding=on"),
    ]
    for words in (*asked, *asked):
        kept, anew = (
            run("check", model, *words, *more, "--json") for more in ((), ("--no-cache",))
        )
        assert kept == anew
