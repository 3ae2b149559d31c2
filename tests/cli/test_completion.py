"""``vramplan completion``: scripts that shells take, and what they complete."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from vramplan.cli import COMMANDS

BASH, FISH, ZSH = (shutil.which(shell) for shell in ("bash", "fish", "zsh"))
SHELLS = ("bash", "zsh", "fish")


def complete(script: str, *words: str) -> list[str]:
    """Return what bash offers behind `words`, the last of them begun."""
    quoted = " ".join(f"'{word}'" for word in words)
    code = (
        f"{script}\nCOMP_WORDS=(vramplan {quoted}); COMP_CWORD={len(words)}; _vramplan; "
        "printf '%s\\n' \"${COMPREPLY[@]}\""
    )
    done = subprocess.run(
        [str(BASH), "--norc", "-c", code], capture_output=True, text=True, check=True, timeout=20
    )
    return done.stdout.split()


@pytest.fixture
def script(run) -> str:
    done = run("completion", "bash")
    assert (done.code, done.err) == (0, "")
    return done.out


@pytest.mark.skipif(BASH is None, reason="no bash here")
@pytest.mark.parametrize(
    ("words", "offered"),
    [
        (["pl"], ["plan"]),
        (["plan", "sdxl-t"], ["sdxl-turbo"]),
        (["plan", "sdxl", "--card", "rtx-3060-"], ["rtx-3060-12gb", "rtx-3060-8gb"]),
        (["plan", "sdxl", "--max", ""], ["batch", "context", "frames", "image"]),
        (["check", "sd15", "--offl"], ["--offload"]),
        (["check", "sd15", "--offload", "seq"], ["sequential"]),
        (["check", "sd15", "--set", "vae_up"], ["vae_upcast="]),
        (["catalog", "va"], ["validate"]),
        (["catalog", "list", "--form"], ["--format"]),
        (["cards", "--form"], ["--format"]),
        (["completion", "f"], ["fish"]),
        (["check", "llava:7"], ["llava:7b"]),
        (["check", "--batch", "x"], []),
    ],
)
def test_bash_completes_what_there_is(script, words, offered) -> None:
    found = complete(script, *words)
    assert [one for one in sorted(found) if "3060-l" not in one and "3060-ti" not in one] == offered


@pytest.mark.skipif(BASH is None, reason="no bash here")
def test_bash_knows_every_command_and_option(script) -> None:
    assert set(COMMANDS) <= set(complete(script, ""))
    options = complete(script, "check", "--")
    assert {"--card", "--json", "--kv-type", "--fail-on"} <= set(options)
    assert "--max" not in options


@pytest.mark.skipif(BASH is None, reason="no bash here")
def test_files_are_offered_where_a_file_may_stand(script, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("model.gguf").write_bytes(b"")
    assert complete(script, "check", "mod") == ["model.gguf"]
    assert complete(script, "check", "-o", "mod") == ["model.gguf"]
    assert complete(script, "cards", "mod") == []


@pytest.mark.parametrize("shell", SHELLS)
def test_a_script_has_every_command(run, shell) -> None:
    done = run("completion", shell)
    assert done.code == 0
    assert all(name in done.out for name in COMMANDS)
    assert "rtx-3060-12gb" in done.out
    assert "llava:7b" in done.out


@pytest.mark.parametrize("shell", SHELLS)
def test_hostile_names_are_left_out(run, tmp_path, shell) -> None:
    """A user's own catalogue may call a pipeline anything: a script never has it to act on."""
    folder = tmp_path / "own"
    folder.mkdir()
    shipped = Path(__file__).parents[2] / "profiles" / "pipelines" / "log-anomaly-ae.yaml"
    text = shipped.read_text(encoding="utf-8")
    (folder / "evil.yaml").write_text(text.replace("name: log-anomaly-ae", "name: mine", 1))
    aliased = text.replace("name: log-anomaly-ae", 'name: "$(touch pwned)"', 1)
    (folder / "worse.yaml").write_text(aliased)
    done = run("completion", shell, "--catalog", folder)
    if done.code == 0:
        assert "mine" in done.out
        assert "touch pwned" not in done.out
    else:  # the catalogue takes no such name
        assert "worse.yaml" in done.error


@pytest.mark.skipif(FISH is None, reason="no fish here")
def test_fish_takes_its_script(run, tmp_path) -> None:
    path = tmp_path / "vramplan.fish"
    path.write_text(run("completion", "fish").out)
    code = f"source {path}; complete -C'vramplan plan sdxl --card rtx-3060-1'"
    done = subprocess.run([str(FISH), "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split()[0] == "rtx-3060-12gb"


@pytest.mark.skipif(ZSH is None, reason="no zsh here")
def test_zsh_takes_its_script(run, tmp_path) -> None:
    path = tmp_path / "_vramplan"
    path.write_text(run("completion", "zsh").out)
    code = (
        f"autoload -U compinit && compinit -u -d {tmp_path / 'dump'}; source {path}; "
        "COMP_WORDS=(vramplan plan sdxl --card rtx-3060-1); COMP_CWORD=4; setopt ksharrays; "
        "_vramplan; print -l -- ${COMPREPLY[@]}"
    )
    done = subprocess.run([str(ZSH), "-f", "-c", code], capture_output=True, text=True, check=True)
    assert "rtx-3060-12gb" in done.stdout.split()  # what was begun is looked at by compadd later
    assert (done.stderr, "sdxl" in done.stdout) == ("", False)


def test_an_unknown_shell_is_refused(run) -> None:
    done = run("completion", "tcsh")
    assert (done.code, done.out) == (2, "")
    assert "invalid choice: 'tcsh'" in done.error
