"""``vramplan fit``: what runs on a card, of the catalogue, of stores and of folders."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import sys
from itertools import combinations
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))

import saved_models as saved  # after the path

from vramplan.ask.targets import open_pipelines

_PATH = Path(__file__).parents[1] / "sparse_gguf.py"
_SPEC = importlib.util.spec_from_file_location("sparse_gguf", _PATH)
sparse = sys.modules.setdefault("sparse_gguf", importlib.util.module_from_spec(_SPEC))
_SPEC.loader.exec_module(sparse)

ORDER = ["fits", "tight", "offload", "oom", None]


def model(layers: int, kind: int | None = None, name: str = "Some 7B") -> object:
    made = sparse.language_model(layers=layers, words=32000)
    made.general = {"general.name": name}
    made = sparse.dense_layers(made)
    if kind is not None:
        made.tensors = [
            (title, shape, kind if len(shape) > 1 else old) for title, shape, old in made.tensors
        ]
    return made


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Two files of one model, q4_0 and f16, a smaller one, and what is no model."""
    root = tmp_path_factory.mktemp("models")
    (root / "deep" / "er").mkdir(parents=True)
    sparse.write(root / "some-q4_0.gguf", model(32))
    sparse.write(root / "deep" / "some-f16.gguf", model(32, sparse.F16))
    sparse.write(root / "deep" / "er" / "small.gguf", model(8, name="Small"))
    (root / "broken.gguf").write_bytes(b"GGUF" + bytes(20))
    (root / "eyes").mkdir()
    (root / "eyes" / "mmproj-f16.gguf").write_bytes(b"not looked at")
    (root / "readme.md").write_text("nothing")
    (root / "loop").symlink_to(root, target_is_directory=True)
    return root


@pytest.fixture
def home(folder, tmp_path, monkeypatch) -> Path:
    """A home with an Ollama store and LM Studio's folder."""
    home = tmp_path / "home"
    blobs = home / ".ollama" / "models" / "blobs"
    blobs.mkdir(parents=True)
    digest = "1" * 64
    (blobs / f"sha256-{digest}").symlink_to(folder / "some-q4_0.gguf")
    names = home / ".ollama" / "models" / "manifests" / "registry.ollama.ai" / "library"
    layer = {"mediaType": "application/vnd.ollama.image.model", "digest": f"sha256:{digest}"}
    for name, layers in (("some", [layer]), ("gone", [{**layer, "digest": "sha256:" + "2" * 64}])):
        (names / name).mkdir(parents=True)
        (names / name / "7b").write_text(json.dumps({"layers": layers}))
    studio = home / ".lmstudio" / "models" / "pub" / "Small-GGUF"
    studio.mkdir(parents=True)
    (studio / "small.gguf").symlink_to(folder / "deep" / "er" / "small.gguf")
    monkeypatch.setenv("HOME", str(home))
    return home


SAMPLE = (
    *("denoising-ae", "llava-1.5-7b-hf", "llava-v1.5-7b", "llava:7b", "log-anomaly-ae", "sd15"),
    *("sd15-vae", "sdxl", "vit-mae-base"),
)


@pytest.fixture
def few(monkeypatch) -> None:
    """Let the catalogue have no more than the sample, where the rest is looked at elsewhere."""
    from vramplan.ask import fit

    monkeypatch.setattr(
        fit,
        "open_pipelines",
        lambda entries, known: open_pipelines([e for e in entries if e.name in SAMPLE], known),
    )


def rows(result) -> list[dict]:
    return result.json["result"]["models"]


@pytest.mark.usefixtures("home")
@pytest.mark.parametrize("card", ["4gb", "8gb", "rtx-4090"])
def test_every_row_says_what_check_says_and_they_are_in_order(run, validate, card) -> None:
    done = run("fit", "--card", card, "--json")
    validate(done.json)
    found = rows(done)
    assert done.code == 0
    ranks = [ORDER.index(row["verdict"]) for row in found]
    assert ranks == sorted(ranks)
    for kind in ("fits", "oom"):
        needs = [row["need_bytes"] for row in found if row["verdict"] == kind]
        assert needs == sorted(needs, reverse=True)
    for row in found:
        # of the catalogue those that a recipe records: the others are counted, all in one way
        is_sample = row["place"] != "catalogue" or row["target"] in SAMPLE
        if row["problem"] is not None or not is_sample:
            continue
        (verdict,) = run("check", row["target"], "--card", card, "--json").json["result"][
            "verdicts"
        ]
        assert (verdict["verdict"], verdict["need_bytes"]) == (row["verdict"], row["need_bytes"])
    places = {row["place"] for row in found}
    assert places == {"catalogue", "Ollama", "LM Studio"}


@pytest.mark.usefixtures("home", "few")
def test_what_cannot_be_read_says_why_and_comes_last(run) -> None:
    last = rows(run("fit", "--card", "8gb", "--json"))[-1]
    assert (last["name"], last["verdict"]) == ("ollama:gone:7b", None)
    assert "a file of it is gone" in last["problem"]
    assert "not read" in run("fit", "--card", "8gb").out


def test_of_one_models_files_the_best_that_stays_whole_is_marked(run, folder) -> None:
    for card, best in (("8gb", "some-q4_0"), ("24gb", "some-f16")):
        done = run("fit", folder, "--only-named", "--card", card, "--json")
        found = {row["name"]: row for row in rows(done) if row["problem"] is None}
        assert set(found) == {"some-q4_0", "some-f16", "small"}
        assert [name for name, row in found.items() if row["is_best_of_family"]] == [best]
        assert (
            found["some-q4_0"]["family"] == found["some-f16"]["family"] != found["small"]["family"]
        )
    table = run("fit", folder, "--only-named", "--card", "8gb").out
    assert "* q" in table


def test_the_best_file_is_about_the_one_that_stays_whole(run, folder, tmp_path) -> None:
    """A file of the type that is named does stay whole, and one of the next larger does not."""
    kinds = {"q8_0": sparse.GGMLQuantizationType.Q8_0, "q4_0": sparse.GGMLQuantizationType.Q4_0}
    words = ("fit", folder, "--only-named", "--json", "--card")
    (row,) = [one for one in rows(run(*words, "10gb")) if one["name"] == "some-q4_0"]
    assert row["best_quantisation"] == "q8_0"
    (row,) = [one for one in rows(run(*words, "4GiB")) if one["name"] == "some-q4_0"]
    assert (row["verdict"], row["best_quantisation"]) == ("offload", None)
    sparse.write(tmp_path / "q8.gguf", model(32, kinds["q8_0"]))
    for card, verdict in (("10gb", "fits"), ("8gb", "offload")):
        (found,) = run("check", tmp_path / "q8.gguf", "--card", card, "--json").json["result"][
            "verdicts"
        ]
        assert found["verdict"] == verdict


def test_rates_are_bounds_by_bandwidth(run, folder) -> None:
    words = ("fit", folder, "--only-named", "--json", "--card")
    for card in ("rtx-3060-12gb", "rtx-3090"):
        found = {row["name"]: row for row in rows(run(*words, card)) if row["problem"] is None}
        pace = found["some-q4_0"]["pace"]
        assert pace["result"] == "token"
        assert pace["per_second"] == pytest.approx(1 / pace["seconds"])
        assert found["small"]["pace"]["per_second"] > pace["per_second"]
    split = {row["name"]: row for row in rows(run(*words, "4GiB")) if row["problem"] is None}
    assert split["some-q4_0"]["layers"]["on_gpu"] < split["some-q4_0"]["layers"]["total"]
    assert split["some-q4_0"]["pace"]["per_second"] < pace["per_second"] / 2


@pytest.mark.usefixtures("few")
def test_settings_are_for_those_that_have_them(run, folder) -> None:
    words = ("fit", folder, "--card", "12gb", "--json")
    short, long = (
        {row["name"]: row["need_bytes"] for row in rows(run(*words, "--context", tokens))}
        for tokens in ("2048", "16384")
    )
    assert short["some-q4_0"] < long["some-q4_0"]
    assert short["sd15"] == long["sd15"]


@pytest.mark.parametrize("format_", ["table", "markdown"])
def test_hostile_names_are_harmless(run, tmp_path, format_) -> None:
    root = tmp_path / "x"
    root.mkdir()
    name = "<script>alert(1)" + "\x1b[31m'\"" + "a" * 150
    sparse.write(root / f"{name}.gguf", model(2, name="<img src=x>\x1b]0;t\x07" + "b" * 10_000))
    (root / "bad\udcff.gguf").write_bytes(b"GGUF")
    done = run("fit", root, "--only-named", "--card", "8gb", "--format", format_)
    assert done.code == 0
    assert "\x1b" not in done.out
    assert format_ == "table" or done.out.count("<script") == done.out.count("`<script")
    assert max(map(len, done.out.splitlines())) < 2_000


@pytest.mark.parametrize(
    ("words", "code", "error"),
    [
        (("nowhere", "--card", "8gb"), 2, "unknown pipeline 'nowhere'"),
        (("--card", "8gb", "--card", "12gb"), 2, "one card"),
        (("--only-named", "--card", "8gb"), 2, "--only-named: nothing is named"),
        ((), 3, "no NVIDIA"),
        (("--card", "8gb", "--image", "x"), 2, "is not a size"),
    ],
)
def test_a_bad_question_gets_one_line(run, words, code, error) -> None:
    done = run("fit", *words)
    assert (done.code, done.out) == (code, "")
    assert error in done.err.splitlines()[0] or code == 3
    assert done.err.startswith("error: ")


def test_targets_are_ranked_too_with_settings_of_their_own(run, validate, folder) -> None:
    """They go before those for all, which each takes that has them."""
    own = "llava:7b[context=16384]"
    words = ("fit", own, folder / "some-q4_0.gguf", "sd15", "--only-named", "--context", "2048")
    done = run(*words, "--card", "8gb", "--json")
    validate(done.json)
    found = {row["target"]: row for row in rows(done)}
    assert set(found) == {own, f"{folder}/some-q4_0.gguf[context=2048]", "sd15"}
    assert {row["place"] for row in found.values()} == {"named"}
    for target, row in found.items():  # what is shown is what other commands take
        (verdict,) = run("check", target, "--card", "8gb", "--json").json["result"]["verdicts"]
        assert (verdict["verdict"], verdict["need_bytes"]) == (row["verdict"], row["need_bytes"])
    assert "context=16384, named" in run(*words, "--card", "8gb").out


def test_any_two_are_judged_as_check_judges_them_side_by_side(run, validate, folder) -> None:
    named = ("llava:7b[context=16384]", "sd15", "llava-v1.5-7b", folder / "some-q4_0.gguf")
    words = ("fit", *named, "--only-named", "--pairs", "--card", "12gb")
    done = run(*words, "--json")
    assert done.err == ""
    validate(done.json)
    pairs = done.json["result"]["pairs"]
    room = [row["target"] for row in rows(done) if row["headroom_bytes"] >= 0]
    assert {tuple(sorted(pair["targets"])) for pair in pairs} == {
        tuple(sorted(two)) for two in combinations(room, 2)
    }
    for pair in pairs:
        again = run("check", *pair["targets"], "--together", "--card", "12gb", "--json")
        (verdict,) = again.json["result"]["verdicts"]
        for key in ("verdict", "need_bytes", "need_high_bytes", "budget_bytes"):
            assert pair[key] == verdict[key]
    assert {pair["verdict"] for pair in pairs} == {"fits", "tight", "oom"}
    shown = run(*words).out
    fitting = sum(pair["verdict"] == "fits" for pair in pairs)
    assert f"{fitting} of {len(pairs)} pairs fit 12gb side by side" in shown
    assert "llava:7b (context=16384)" in shown
    marked = run(*words[:-1], "24gb", "--format", "markdown").out
    assert len(re.findall(r"\| fits beside +\|", marked)) == 1
    assert run(*words[:-3], "--card", "12gb", "--json").json["result"]["pairs"] is None


def test_pairs_on_several_cards_are_not_modelled(run) -> None:
    done = run("fit", "sd15", "llava:7b", "--only-named", "--pairs", "--card", "2xrtx-3090")
    assert done.code == 2
    assert "side by side on several cards are not modelled" in done.error


def test_an_empty_folder_has_nothing_that_fits(run, tmp_path) -> None:
    (tmp_path / "none").mkdir()
    done = run("fit", tmp_path / "none", "--only-named", "--card", "8gb")
    assert (done.code, done.out) == (1, "no models\n")


def test_what_is_no_file_is_not_waited_for(run, tmp_path) -> None:
    """A pipe, a device, a link to nowhere, a folder with a model's name."""
    root = tmp_path / "odd"
    root.mkdir()
    os.mkfifo(root / "pipe.gguf")
    (root / "dangling.gguf").symlink_to("/nowhere")
    (root / "zero.gguf").symlink_to("/dev/zero")
    (root / "empty.gguf").write_bytes(b"")
    (root / "folder.gguf").mkdir()
    found = rows(run("fit", root, "--only-named", "--card", "8gb", "--json"))
    assert {row["name"] for row in found} == {
        "pipe.gguf", "dangling.gguf", "zero.gguf", "empty.gguf",
    }  # fmt: skip
    assert all(row["problem"] and row["verdict"] is None for row in found)


def test_saved_models_of_a_folder_are_looked_at(run, tmp_path) -> None:
    folder = saved.save(tmp_path / "deep" / "mine", "sd15-vae")
    (tmp_path / "lora.safetensors").write_bytes(b"no header")
    found = rows(run("fit", tmp_path, "--only-named", "--card", "8gb", "--json"))
    mine, lora = found
    assert (mine["name"], mine["target"]) == ("mine", str(folder))
    (verdict,) = run("check", folder, "--card", "8gb", "--json").json["result"]["verdicts"]
    assert (mine["verdict"], mine["need_bytes"]) == (verdict["verdict"], verdict["need_bytes"])
    assert (lora["name"], lora["verdict"]) == ("lora.safetensors", None)
    assert lora["problem"]


def test_a_folder_that_cannot_be_read_is_passed_over(run, tmp_path) -> None:
    locked = tmp_path / "locked"
    locked.mkdir()
    locked.chmod(0)
    try:
        done = run("fit", tmp_path, "--only-named", "--card", "8gb")
        assert (done.code, done.out) == (1, "no models\n")
    finally:
        locked.chmod(0o700)
    assert os.access(locked, os.R_OK)
