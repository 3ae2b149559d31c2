"""``vramplan cache``, and that what is remembered is what would be worked out, to the byte."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

#: every pipeline of the catalogue away from its defaults, on cards that some fail on
QUESTIONS = (
    ("check", "sd15", "sd15-vae", "--image", "576x576", "--card", "4gb", "--card", "8gb"),
    ("check", "sdxl", "--image", "768x768", "--card", "rtx-3060-12gb"),
    ("check", "llava-1.5-7b-hf", "--new-tokens", "7", "--card", "8gb"),
    ("check", "vit-mae-base", "denoising-ae", "log-anomaly-ae", "--batch", "3", "--card", "8gb"),
    ("check", "llava:7b", "llava-v1.5-7b", "--context", "3000", "--card", "4gb", "--card", "8gb"),
    ("estimate", "vit-mae-base", "--mode", "train", "--batch", "5"),
)
#: what works something out: none of it is loaded where all is remembered
WORK = {
    "vramplan.engines.torch.tape.rehearsal",
    "vramplan.engines.torch.tape.reader",
    "vramplan.engines.ggml.graph.graph_allocator",
}
_CODE = (
    "import sys; from vramplan.cli import main; code = main(sys.argv[1:]); "
    "print(*sys.modules, file=sys.stderr); sys.exit(code)"
)


def ask(*words: str, cache: Path | str) -> tuple[int, bytes, set[str]]:
    """Run a command in a process of its own; return its code, its output and what it loaded."""
    done = subprocess.run(
        [sys.executable, "-c", _CODE, *words, "--json"],
        env={**os.environ, "VRAMPLAN_CACHE": str(cache)},
        capture_output=True,
        check=False,
    )
    assert done.returncode in {0, 1}, done.stderr
    return done.returncode, done.stdout, set(done.stderr.decode().split())


@pytest.mark.parametrize("words", QUESTIONS, ids=lambda words: words[1])
def test_a_remembered_answer_is_the_one_that_is_worked_out(words, tmp_path) -> None:
    code, without, worked = ask(*words, cache="off")
    assert worked & WORK
    assert ask(*words, cache=tmp_path)[:2] == (code, without)
    kept = sorted(path.read_bytes() for path in tmp_path.rglob("*.json"))
    assert kept
    again = ask(*words, cache=tmp_path)
    assert again[:2] == (code, without)
    # which layers the loader places, its tape tells: it is read
    tells = {"vramplan.engines.torch.tape.reader"} if words[1] == "llava-1.5-7b-hf" else set()
    assert not again[2] & (WORK - tells)
    assert sorted(path.read_bytes() for path in tmp_path.rglob("*.json")) == kept


def test_entries_that_are_damaged_are_worked_out_again(tmp_path) -> None:
    words = QUESTIONS[3]
    _, without, _ = ask(*words, cache=tmp_path)
    paths = list(tmp_path.rglob("*.json"))
    before = [path.read_bytes() for path in paths]
    for path in paths:
        path.write_bytes(path.read_bytes().replace(b"1", b"2"))
    assert ask(*words, cache=tmp_path)[1] == without
    assert [path.read_bytes() for path in paths] == before


@pytest.fixture
def remembering(monkeypatch, tmp_path) -> Path:
    folder = tmp_path / "kept"
    monkeypatch.setenv("VRAMPLAN_CACHE", str(folder))
    return folder


CHECK = ("check", "log-anomaly-ae", "--batch", "3", "--card", "8gb", "--json")


def forget() -> None:
    from vramplan.engines.torch import shipped_results

    shipped_results.forget()


def test_it_is_shown_and_cleared(run, remembering) -> None:
    assert "Nothing is remembered yet" in run("cache").out
    forget()
    assert run(*CHECK).err == ""
    shown = run("cache", "--json").json["result"]
    assert (shown["folder"], shown["is_used"]) == (str(remembering), True)
    assert shown["entries"] == sum(kind["entries"] for kind in shown["kinds"]) > 0
    assert shown["size_bytes"] > 100
    assert "replay" in run("cache").out
    assert "| replay |" in run("cache", "show", "--format", "markdown").out
    cleared = run("cache", "clear", "--json").json["result"]
    assert cleared["removed_entries"] == shown["entries"]
    assert cleared["removed_bytes"] == shown["size_bytes"]
    assert list(remembering.iterdir()) == []
    assert "0 entries were removed" in run("cache", "clear").out


def test_no_cache_takes_none_and_keeps_none(run, remembering) -> None:
    forget()
    run(*CHECK, "--no-cache")
    assert not remembering.exists()


def test_it_can_be_switched_off(run, monkeypatch, tmp_path) -> None:
    monkeypatch.setenv("VRAMPLAN_CACHE", "off")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "caches"))
    forget()
    run(*CHECK)
    assert not (tmp_path / "caches").exists()
    assert "switched off by VRAMPLAN_CACHE" in " ".join(run("cache").out.split())


def test_a_folder_that_cannot_be_written_is_said_once(run, monkeypatch, tmp_path) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("VRAMPLAN_CACHE", str(tmp_path / "file"))
    forget()
    result = run("check", "log-anomaly-ae", "denoising-ae", "--batch", "3", "--card", "8gb")
    assert result.code == 0
    (line,) = result.err.splitlines()
    assert line.startswith(f"note: {tmp_path / 'file'}: cannot be written")


def test_where_there_is_no_folder_for_caches_nothing_is_remembered(run, monkeypatch) -> None:
    for name in ("VRAMPLAN_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", "nowhere")
    assert run(*CHECK).code == 0
    assert "names no folder" in run("cache").out
    assert "names no folder" in run("cache", "clear").error


def test_an_action_nobody_knows_is_one_line(run) -> None:
    assert "choose from" in run("cache", "empty").error


def test_a_program_that_uses_the_library_writes_nothing(tmp_path) -> None:
    code = "import vramplan; vramplan.check('log-anomaly-ae', card='8gb', batch=3)"
    env = {**os.environ, "VRAMPLAN_CACHE": str(tmp_path / "kept")}
    subprocess.run([sys.executable, "-c", code], env=env, check=True)
    assert not (tmp_path / "kept").exists()
