"""Standard streams that are closed, full, no text or nobody's; files that are none."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FITS = ("check", "llava:7b", "--card", "12gb")
FAILS = ("check", "llava:7b", "--card", "4gb")


def shell(line: str, folder: Path) -> tuple[int, str, str]:
    """Run a line of a shell, in which $V is vramplan; return its exit code, stdout and stderr."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "V": f"{sys.executable} -m vramplan"}
    done = subprocess.run(
        ["/bin/sh", "-c", line],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize(("words", "code"), [(FITS, 0), (FAILS, 1), (("check", "nope"), 2)])
def test_a_closed_stderr_changes_nothing_else(tmp_path, words, code) -> None:
    line = f"$V {' '.join(words)}"
    usual, closed = shell(line, tmp_path), shell(f"{line} 2>&-", tmp_path)
    assert (closed[0], closed[1]) == (usual[0], usual[1])
    assert (closed[0], closed[2]) == (code, "")


@pytest.mark.parametrize("words", [FITS, FAILS, ("cards",), ("--help",), ("check", "--help")])
def test_a_closed_stdout_is_one_line(tmp_path, words) -> None:
    code, _, err = shell(f"$V {' '.join(words)} >&-", tmp_path)
    assert (code, err) == (2, "error: standard output cannot be written: Bad file descriptor\n")


def test_with_a_file_a_closed_stdout_does_not_matter(tmp_path) -> None:
    code, _, err = shell(f"$V {' '.join(FITS)} -o a.json <&- >&-", tmp_path)
    assert (code, err) == (0, "wrote a.json\n")
    assert (tmp_path / "a.json").read_text(encoding="utf-8").startswith("{")


def test_all_three_closed_still_have_an_exit_code(tmp_path) -> None:
    line = f"$V {' '.join(FITS)} -o a.md <&- >&- 2>&-"
    assert shell(line, tmp_path) == (0, "", "")
    assert (tmp_path / "a.md").read_text(encoding="utf-8").startswith("## ")
    assert shell("$V check nope <&- >&- 2>&-", tmp_path)[0] == 2


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
@pytest.mark.parametrize(
    "words", ["--help", "--version", "cards", " ".join(FITS), "catalog add m.yaml --catalog c"]
)
def test_a_full_stdout_is_one_line(tmp_path, tiny, words) -> None:
    tiny.rename(tmp_path / "m.yaml")
    code, _, err = shell(f"$V {words} > /dev/full", tmp_path)
    assert (code, len(err.splitlines())) == (2, 1)
    assert err.startswith("error: standard output cannot be written: No space left")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_a_full_stderr_changes_no_exit_code(tmp_path) -> None:
    assert shell(f"$V {' '.join(FITS)} -o a.json 2> /dev/full", tmp_path)[0] == 0
    assert shell("$V check nope 2> /dev/full", tmp_path)[0] == 2


def test_a_reader_of_both_that_goes_away_is_no_error(tmp_path) -> None:
    code, _, err = shell(f"($V {' '.join(FAILS)}; echo $? >&3) 3>code 2>&1 | true", tmp_path)
    assert (code, err) == (0, "")
    assert (tmp_path / "code").read_text(encoding="utf-8") == "1\n"


# -- stdin --------------------------------------------------------------------------------------


def test_a_closed_stdin_is_one_line(tmp_path) -> None:
    code, out, err = shell("$V compare sd15 --smi - <&-", tmp_path)
    assert (code, out, err) == (2, "", "error: -: standard input is closed\n")


@pytest.mark.parametrize(
    "data", [b"\xff\xfe\xfa", b"\x80" * 5000, b"", b"\0" * 100, bytes(range(256))]
)
def test_stdin_that_is_no_text_is_one_line(run, monkeypatch, data) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data), encoding="utf-8"))
    result = run("compare", "sd15", "--smi", "-")
    assert (result.code, result.out) == (2, "")
    assert "internal" not in result.error


# -- what stands where a file is expected ---------------------------------------------------------


@pytest.fixture
def odd(tmp_path) -> Path:
    for suffix in ("yaml", "gguf", "json", "json.gz"):
        os.mkfifo(tmp_path / f"pipe.{suffix}")
        (tmp_path / f"device.{suffix}").symlink_to("/dev/zero")
        (tmp_path / f"circle.{suffix}").symlink_to(f"circle.{suffix}")
    (tmp_path / "mine" / "pipelines").mkdir(parents=True)
    os.mkfifo(tmp_path / "mine" / "pipelines" / "pipe.yaml")
    (tmp_path / "folder.yaml").mkdir()
    return tmp_path


LONG = "n" * 300
CARD = ("--card", "8gb")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["check", "pipe.yaml", *CARD], "not a file, but a pipe or a device"),
        (["check", "pipe.gguf", *CARD], "not a file, but a pipe or a device"),
        (["check", "device.yaml", *CARD], "not a file, but a pipe or a device"),
        (["check", "device.gguf", *CARD], "not a file, but a pipe or a device"),
        (["check", "circle.yaml", *CARD], "symbolic links"),
        (["check", "circle.gguf", *CARD], "symbolic links"),
        (["check", "folder.yaml", *CARD], "Is a directory"),
        (["check", LONG, *CARD], "File name too long"),
        (["check", f"{LONG}/n", *CARD], "File name too long"),
        (["check", f"{LONG}.yaml", *CARD], "File name too long"),
        (["check", f"{LONG}.gguf", *CARD], "File name too long"),
        (["check", "a\0b", *CARD], "has a NUL"),
        (["check", "a\0b.gguf", *CARD], "has a NUL"),
        (["check", "a\0b.yaml", *CARD], "has a NUL"),
        (["check", "a/\0b", *CARD], "has a NUL"),
        (["check", "sd15", *CARD, "--catalog", "mine"], "not a file, but a pipe or a device"),
        (["check", "sd15", *CARD, "--catalog", LONG], "File name too long"),
        (["check", "sd15", *CARD, "--catalog", "a\0b"], "is not a folder"),
        (["check", "sd15", *CARD, "--catalog", "circle.yaml"], "is not a folder"),
        (["check", "sd15", *CARD, "-o", f"{LONG}.json"], "File name too long"),
        (["check", "sd15", *CARD, "-o", "circle.json"], "its links lead in a circle"),
        (["check", "sd15", *CARD, "-o", "mine"], "it is a folder"),
        (["check", "sd15", *CARD, "-o", "a\0b.json"], "has a NUL"),
        (["compare", "device.json"], "no such file"),
        (["compare", f"{LONG}.json"], "File name too long"),
        (["compare", "a\0b.json"], "no such file"),
        (["compare", "sd15", "--smi", "mine"], "Is a directory"),
        (["compare", "sd15", "--smi", LONG], "File name too long"),
        (["compare", "sd15", "--smi", "a\0b"], "has a NUL"),
        (["compare", "sd15", "--smi", "device.json"], "nvidia-smi"),
        (["watch", "--replay", "pipe.json"], "not a file, but a pipe or a device"),
        (["watch", "--replay", "pipe.json.gz"], "not a file, but a pipe or a device"),
        (["watch", "--replay", "a\0b"], "has a NUL"),
        (["catalog", "validate", "pipe.yaml"], "not a file, but a pipe or a device"),
        (["catalog", "validate", LONG], "File name too long"),
        (["catalog", "add", "pipe.yaml", "--catalog", "mine"], "not a file, but a pipe"),
        (["catalog", "add", "sd15.yaml", "--catalog", "pipe.yaml"], "File exists"),
    ],
)
def test_what_is_no_file_is_one_line(run, odd, words, said) -> None:
    if words[:3] == ["catalog", "add", "sd15.yaml"]:
        text = (ROOT / "profiles" / "pipelines" / "sd15.yaml").read_text(encoding="utf-8")
        (odd / "sd15.yaml").write_text(text, encoding="utf-8")
    before = sorted(odd.rglob("*"))
    result = run(*words)
    assert (result.code, result.out) == (2, "")
    assert said in result.error
    assert "internal error" not in result.error
    assert sorted(odd.rglob("*")) == before, "something is left"


def test_a_longest_name_of_a_file_is_written(run, tmp_path) -> None:
    name = "n" * 250 + ".json"
    assert run("cards", "-o", name).code == 0
    assert [one.name for one in tmp_path.iterdir()] == [name]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_what_is_not_yours_to_write_is_left(run, tmp_path) -> None:
    target = tmp_path / "a.json"
    target.touch(mode=0o444)
    assert "not yours to write to" in run("cards", "-o", "a.json").error
    assert target.stat().st_size == 0
    tmp_path.chmod(0o555)
    assert "not yours to write to" in run("cards", "-o", "b.json").error
    tmp_path.chmod(0o755)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_a_full_target_is_one_line(run) -> None:
    result = run("cards", "-o", "/dev/full", "--json")
    assert (result.code, result.error) == (
        2,
        "/dev/full: cannot be written: No space left on device",
    )


@pytest.mark.parametrize(
    "name", ["fit.xps", "fit.docx", "fit.json.gz", "fit.HTML5", "a.yaml", ".x.y", "fit.²"]
)
@pytest.mark.parametrize("command", ["report", "cards", "doctor", "catalog list", "estimate sd15"])
def test_a_suffix_that_names_no_format_is_refused(run, tmp_path, command, name) -> None:
    result = run(*command.split(), "-o", name)
    assert (result.code, result.out) == (2, "")
    assert result.error == f"{name}: {Path(name).suffix.lower()} names no format"
    assert ".json" in result.hint
    assert not list(tmp_path.iterdir())


def test_a_format_that_is_named_needs_no_suffix(run, tmp_path) -> None:
    assert run("cards", "-o", "cards.v2", "--json").code == 0
    assert (tmp_path / "cards.v2").read_text(encoding="utf-8").startswith("{")


# -- digits ---------------------------------------------------------------------------------------

ODD_DIGITS = ["²", "٣", "８", "1²", "1_000", "๓"]


@pytest.mark.parametrize("digits", ODD_DIGITS)
@pytest.mark.parametrize(
    "words",
    [
        ["check", "sd15", "--card", "{}gb"],
        ["check", "sd15", "--card", "{}GiB"],
        ["check", "sd15", *CARD, "--batch", "{}"],
        ["check", "sd15", *CARD, "--image", "{}"],
        ["check", "sd15", *CARD, "--image", "512x{}"],
        ["check", "sd15", *CARD, "--set", "guidance={}"],
        ["check", "sd15", *CARD, "--margin", "{}MiB"],
        ["check", "sd15", *CARD, "--other", "1.{}GiB"],
        ["check", "llava:7b", *CARD, "--context", "{}"],
        ["check", "llava:7b", *CARD, "--gpu-layers", "{}"],
        ["check", "llava:7b", *CARD, "--set", "engine=b{}"],
        ["compare", "sd15", "--pid", "{}"],
        ["compare", "sd15", "--tolerance", "{}"],
        ["watch", "--count", "{}"],
        ["watch", "--interval", "{}"],
        ["watch", "--for", "{}"],
        ["watch", "--budget", "{}GiB"],
    ],
)
def test_a_digit_is_one_of_asciis_ten(run, words, digits) -> None:
    result = run(*(word.format(digits) for word in words))
    assert (result.code, result.out) == (2, "")
    assert "internal error" not in result.error


@pytest.mark.parametrize(
    "unit", ["\N{KELVIN SIGN}B", "M\N{LATIN SMALL LETTER DOTLESS I}B", "G\u0130B"]
)
def test_a_letter_that_only_looks_like_a_units_is_none(run, unit) -> None:
    assert "not a size" in run("check", "sd15", *CARD, "--margin", f"8{unit}").error


@pytest.mark.parametrize("digits", ["9" * 5000, "0" * 11 + "1" * 5000])
@pytest.mark.parametrize(
    "words",
    [["compare", "sd15", "--pid"], ["watch", "--count"], ["compare", "sd15", "--tolerance"]],
)
def test_a_number_of_thousands_of_digits_is_none(run, words, digits) -> None:
    result = run(*words, digits)
    assert (result.code, result.out) == (2, "")
    assert "internal error" not in result.error
