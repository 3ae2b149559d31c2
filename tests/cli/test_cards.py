"""``vramplan cards``: the cards, what a class is judged at, this machine's GPUs."""

from __future__ import annotations

import re

import pytest

from vramplan.catalog import load_catalog

MIB = 1 << 20


def test_every_card_is_listed(run, validate) -> None:
    result = run("cards", "--json")
    assert (result.code, result.err) == (0, "")
    validate(result.json)
    names = [card["name"] for card in result.json["result"]["cards"]]
    assert names == list(load_catalog().cards)
    assert len(names) >= 40
    assert result.json["result"]["judged_as"] is None


def test_table(run) -> None:
    result = run("cards")
    assert (result.code, result.err) == (0, "")
    lines = result.out.splitlines()
    assert " ".join(lines[0].split()) == "card title kind class capacity usable cc SMs bandwidth"
    assert any(line.startswith("rtx-3060-12gb ") for line in lines)


def test_markdown(run) -> None:
    result = run("cards", "--format", "markdown")
    assert re.match(r"\| card +\| title +\|", result.out)
    assert re.search(r"\n\| `rtx-3060-12gb` +\|", result.out)


def test_a_named_card_comes_with_its_sources(run) -> None:
    result = run("cards", "RTX 3060 12GB")
    assert (result.code, result.err) == (0, "")
    assert result.out.startswith("rtx-3060-12gb: total: nvidia-smi")
    cards = run("cards", "rtx-3060-12gb", "--json").json["result"]["cards"]
    assert [card["name"] for card in cards] == ["rtx-3060-12gb"]


def test_a_class_shows_its_cards_and_what_it_is_judged_at(run, validate) -> None:
    result = run("cards", "8GB", "--json")
    validate(result.json)
    found = result.json["result"]
    assert {card["class_gib"] for card in found["cards"]} == {8}
    usable = min(card["total_bytes"] - card["reserved_bytes"] for card in found["cards"])
    assert {card["total_bytes"] - card["reserved_bytes"] for card in found["judged_as"]} == {usable}
    capabilities = {card["compute_capability"] for card in found["cards"]}
    assert {card["compute_capability"] for card in found["judged_as"]} == capabilities
    assert run("cards", "8gb").out.startswith("8gb is judged as the least of ")


def test_a_size_shows_what_it_is_judged_at(run) -> None:
    found = run("cards", "9.5GiB", "--json").json["result"]
    assert {card["total_bytes"] for card in found["judged_as"]} == {9728 * MIB}
    assert run("cards", "9.5GiB").out.startswith("9.5GiB is judged as a size given by hand")


def test_auto_shows_this_machines_gpus(run, driver, gpu, validate) -> None:
    driver(gpu(), gpu(name="NVIDIA A100-SXM4-40GB", uuid="GPU-1", capability=(8, 0)))
    result = run("cards", "auto", "--json")
    validate(result.json)
    first, second = result.json["result"]["cards"]
    assert (first["name"], first["title"]) == ("auto:0", "NVIDIA GeForce RTX 3060")
    assert first["free_bytes"] == (12288 - 900 - 368) * MIB
    assert (second["name"], second["compute_capability"]) == ("auto:1", "8.0")
    assert "auto:0: NVML, driver 570.124.04, GPU-0" in run("cards", "auto").out


def test_auto_without_a_gpu_is_3(run) -> None:
    result = run("cards", "auto")
    assert (result.code, result.out) == (3, "")
    assert result.error.startswith("no NVIDIA driver")


@pytest.mark.parametrize(
    ("card", "error"),
    [("rtx-3061", "unknown card 'rtx-3061'"), ("7gb", "no card of the class 7gb is known")],
)
def test_an_unknown_card_is_one_line(run, card: str, error: str) -> None:
    result = run("cards", card)
    assert (result.code, result.out) == (2, "")
    assert result.error == error


def test_a_card_of_ones_own_is_listed(run, tmp_path) -> None:
    (tmp_path / "cards").mkdir()
    (tmp_path / "cards" / "mine.yaml").write_text(
        "cards:\n- {name: my-card, title: Mine, kind: consumer, class_gib: 5, "
        "total_bytes: 5GiB, reserved_bytes: 0, compute_capability: '8.6', "
        "bandwidth_bytes_per_s: 1GB, source: made up}\n",
        encoding="utf-8",
    )
    cards = run("cards", "5gb", "--catalog", tmp_path, "--json").json["result"]["cards"]
    assert [card["name"] for card in cards] == ["my-card"]


# ---------------------------------------------------------------------------- words and sizes
def names(result) -> list[str]:
    return [card["name"] for card in result.json["result"]["cards"]]


def test_cards_are_found_by_what_they_are_called_and_their_size(run, validate) -> None:
    done = run("cards", "laptop", "--min", "12gb", "--json")
    validate(done.json)
    found = done.json["result"]["cards"]
    assert found
    assert {card["kind"] for card in found} == {"laptop"}
    assert min(card["class_gib"] for card in found) >= 12
    assert done.json["result"]["judged_as"] is None
    both = names(run("cards", "LAPTOP", "ti", "--json"))
    assert both
    assert all("ti" in name for name in both)
    assert set(names(run("cards", "3060", "--json"))) >= {"rtx-3060-8gb", "rtx-3060-12gb"}
    assert set(names(run("cards", "12.0", "workstation", "--json"))) <= set(load_catalog().cards)


def test_a_bound_is_a_class_or_what_is_usable(run) -> None:
    cards = load_catalog().cards.values()
    by_size = names(run("cards", "--min", "11.6GiB", "--max", "16gb", "--json"))
    wanted = [
        card.name
        for card in cards
        if card.total_bytes - card.reserved_bytes >= 11.6 * 1024 * MIB and card.class_gib <= 16
    ]
    assert by_size == wanted
    assert names(run("cards", "--max", "8", "--json")) == names(
        run("cards", "--max", "8gb", "--json")
    )
    none = run("cards", "laptop", "--max", "2gb")
    assert (none.code, none.out) == (0, "no card is called so and as large\n")


@pytest.mark.parametrize(
    ("words", "error", "hint"),
    [
        (["latpop"], "no card is called 'latpop'", "did you mean 'laptop'?"),
        (["rx-7900-xtx"], "'rx-7900-xtx' is known but not modelled", "--card 24GiB"),
        (["laptop", "voodoo"], "unknown card 'voodoo'", "vramplan cards shows them"),
        (["--min", "8M"], "--min: unclear unit in size '8M'", "8MiB"),
    ],
)
def test_what_no_card_is_called_gets_a_way_out(run, words, error, hint) -> None:
    done = run("cards", *words)
    assert (done.code, done.out) == (2, "")
    assert error in done.error
    assert hint in done.hint
