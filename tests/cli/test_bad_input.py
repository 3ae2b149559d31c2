"""Bad input: one line that says what and where, the right exit code, no traceback."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from vramplan.engines.torch.tape.format import SCHEMA
from vramplan.extras import install_command

CARD = ("--card", "8gb")


@pytest.mark.parametrize(
    ("words", "error", "hint"),
    [
        (["sd16", *CARD], "unknown pipeline 'sd16'", "did you mean 'sd15'?"),
        (["zzz", *CARD], "unknown pipeline 'zzz'", "vramplan catalog list shows them"),
        (["sd15", "--card", "rtx-3061-12gb"], "unknown card 'rtx-3061-12gb'", "rtx-3060-12gb"),
        (["sd15", "--card", "9gb"], "no card of the class 9gb is known", "known classes: "),
        (["sd15", "--card", "8M"], "not a card: '8M'", "12gb for a class"),
        (["sd15", *CARD, "--vram", "8gb"], "unknown option '--vram'", "did you mean '--card'?"),
        (["sd15", *CARD, "--gpu", "8gb"], "unknown option '--gpu'", "did you mean '--card'?"),
        (["llava:7b", *CARD, "-c", "8"], "unknown option '-c'", "did you mean '--context'?"),
        (["llava:7b", *CARD, "-ngl", "8"], "unknown option '-ngl'", "mean '--gpu-layers'?"),
        (["sd15", *CARD, "--lora", "x"], "unknown option '--lora'", "'--set lora=VALUE'"),
        (["sd15", *CARD, "-ts", "1"], "unknown option '-ts'", "'--set tensor_split=VALUE'"),
        (["llava:7b", "-ot", "x=CPU"], "unknown option '-ot'", "'--set override_tensor=VALUE'"),
        (["llava:7b", "-ot=x=CPU"], "unknown option '-ot'", "'--set override_tensor=VALUE'"),
        (
            ["llava:7b", *CARD, "--ubatch", "1k"],
            "unknown option '--ubatch'",
            "'--set ubatch=VALUE'",
        ),
        (["sd15", *CARD, "-x", "1"], "unknown option '-x'", "vramplan check --help"),
        (["sd15", *CARD, "--set", "lora=x"], "lora 'x': no adapter", "rank16"),
        (["sd15", *CARD, "--json", "--format", "html"], "--format: html and json", "one of"),
        (["sd15", *CARD, "--format", "html", "--json"], "--json: json and html", "one of"),
        (["sd15", *CARD, "--set", "controlnet=cany"], "controlnet 'cany': no", "'canny'?"),
        (["sd15", *CARD, "--set", "fps=8"], "'fps' is known but not modelled", "--margin"),
        (["sd15", "--card", "m3-max"], "'m3-max' is known but not modelled", "--card 24GiB"),
        (["sd15", "--card", "3060"], "'3060' comes in several sizes", "rtx-3060-12gb"),
        (["sd15", *CARD, "--set", "bacth=2"], "unknown setting 'bacth'", "did you mean 'batch'?"),
        (["sd15", *CARD, "--set", "batch"], "not a setting: 'batch'", "key=value"),
        (["sd15", *CARD, "--dtype", "fp17"], "unknown dtype 'fp17'", "did you mean 'fp16'?"),
        (["sd15", *CARD, "--dtype", "nf4"], "unknown dtype 'nf4'", "--set quantization=bnb-4bit"),
        (
            ["gemma", *CARD],
            "unknown pipeline 'gemma'",
            "begin so, such as gemma-3-12b, gemma-3-4b",
        ),
        (["sd15", *CARD, "--mode", "txt2vid"], "sd15 has no mode 'txt2vid'", "txt2img"),
        (
            ["sd15", *CARD, "--margin", "8G"],
            "--margin: unclear unit in size '8G'",
            "write 8GB for 8,000,000,000 bytes or 8GiB for 8,589,934,592 bytes",
        ),
        (["sd15", *CARD, "--other", "lots"], "--other: not a size: 'lots'", "512MiB"),
        (
            ["sd15", *CARD, "--image", "500x500"],
            "image 500x500: width and height must be multiples of 8",
            "nearest that work: 496x496, 504x504",
        ),
        (["sd15", "--card", "200MiB"], "200MiB: 200 MiB are left", "choose a larger card"),
        (["sd15", *CARD, "--margin", "7.5GiB"], "8gb: ", "a smaller --margin or --other"),
        (["sd15", *CARD, "--context", "4096"], "sd15 has no setting 'context'", "it has: mode"),
        (["no.yaml", *CARD], "no.yaml: cannot be read: No such file or directory", None),
        (
            ["sd15", *CARD, "--catalog", "nowhere"],
            "--catalog: nowhere is not a folder",
            None,
        ),
    ],
)
def test_check_says_it_in_one_line(run, words, error: str, hint: str | None) -> None:
    result = run("check", *words)
    assert (result.code, result.out) == (2, "")
    assert result.error.startswith(error)
    assert hint is None or hint in result.hint


def test_llama_cpps_ot_writes_no_file(run, tmp_path) -> None:
    """For argparse it is ``-o t``."""
    for words in (("-ot", "x=CPU"), ("-ot=x=CPU",), ("-ot",)):
        assert run("check", "llava:7b", *CARD, *words).code == 2
    assert not list(tmp_path.iterdir())


def test_a_word_in_place_of_an_action_is_looked_for(run) -> None:
    result = run("catalog", "llava")
    assert result.hint == "did you mean 'vramplan catalog list llava'?"
    assert run("catalog", "list", "llava").code == 0


def test_help_has_a_help(run) -> None:
    assert run("help", "help").out == run("--help").out


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (["--batch", "0"], "batch 0: must be at least 1"),
        (["--batch", "-1"], "batch -1: must be at least 1"),
        (["--margin", "-1GiB"], "--margin: a size cannot be negative: '-1GiB'"),
        (["--margin=-1GiB"], "--margin: a size cannot be negative: '-1GiB'"),
    ],
)
def test_too_little_says_so(run, words, error: str) -> None:
    result = run("check", "sd15", *CARD, *words)
    assert (result.code, result.out) == (2, "")
    assert result.error == error


def test_a_card_has_to_hold_a_cuda_context_whatever_runs_on_it(run) -> None:
    for target in ("llava:7b", "sd15"):
        result = run("check", target, "--card", "200MiB")
        assert result.code == 2
        assert "the CUDA context alone takes" in result.error


def test_a_key_that_stands_twice_has_its_place(run, tiny: Path) -> None:
    tiny.write_text(tiny.read_text("utf-8") + "title: Again\n", encoding="utf-8")
    result = run("check", "tiny.yaml", *CARD)
    assert (result.code, result.out) == (2, "")
    assert result.error == "tiny.yaml:11:1: the key 'title' appears twice"
    assert result.hint == "it stands first in line 2"


def test_a_file_that_is_not_yaml_has_its_place(run, tmp_path) -> None:
    (tmp_path / "x.yaml").write_text("name: [\n", encoding="utf-8")
    result = run("check", "x.yaml", *CARD)
    assert result.code == 2
    assert result.error.startswith("x.yaml:2:1: not YAML")


def test_a_mistake_in_a_catalogue_of_ones_own_has_its_place(run, tmp_path, tiny: Path) -> None:
    tiny.write_text(tiny.read_text("utf-8").replace("title:", "titel:"), encoding="utf-8")
    result = run("check", "llava:7b", *CARD, "--catalog", tmp_path)
    assert result.code == 2
    assert result.error.startswith(f"{tiny}:")
    assert len(result.err.splitlines()) == 2


# -- tapes --------------------------------------------------------------------------------------


@pytest.fixture
def tape(tmp_path) -> Path:
    """Where a tape of sd15-vae is looked for before the one that ships."""
    (tmp_path / "own" / "tapes").mkdir(parents=True)
    (tmp_path / "own" / "pipelines").mkdir()
    return tmp_path / "own" / "tapes" / "sd15-vae.json"


CUT_SHORT = json.dumps({"schema": SCHEMA, "pipeline": "sd15-vae", "routines": {}})[:-8]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (json.dumps({"schema": 999, "pipeline": "sd15-vae"}), "tape schema 999"),
        (CUT_SHORT, "not a whole tape (cut short?)"),
        ("", "not a whole tape (cut short?)"),
        ("[]", "not a tape"),
        (json.dumps({"schema": SCHEMA, "pipeline": "sd15-vae"}), "sd15-vae.json: "),
        ("\x00\xff" * 100, "not a whole tape"),
    ],
)
@pytest.mark.parametrize("command", ["check", "estimate"])
def test_a_tape_that_cannot_be_used_is_one_line(run, tape: Path, command, text, said) -> None:
    tape.write_text(text, encoding="utf-8")
    result = run(command, "sd15-vae", *CARD, "--catalog", "own")
    assert (result.code, result.out) == (2, "")
    assert said in result.error
    assert "own/tapes/sd15-vae.json" in result.error


def test_a_pipeline_without_a_tape_says_how_to_make_one(run, tmp_path) -> None:
    (tmp_path / "mine.yaml").write_text(
        "name: mine\ntitle: Mine\nsummary: A VAE.\nruntime: diffusers\nsource: made up\n"
        "tape: mine\nsettings: {image: 512, dtype: fp16}\n"
        "components: [{name: vae, class: diffusers.AutoencoderKL}]\n",
        encoding="utf-8",
    )
    result = run("check", "mine.yaml", *CARD)
    assert result.code == 2
    assert "no tape mine.json" in result.error
    assert "vramplan record" in result.hint


# -- record without its libraries ---------------------------------------------------------------


@pytest.mark.parametrize("missing", ["torch", "diffusers", "transformers"])
def test_record_without_a_library_names_the_extra(run, monkeypatch, missing: str) -> None:
    monkeypatch.setitem(sys.modules, missing, None)  # what an import then finds: nothing
    result = run("record", "sd15")
    assert (result.code, result.out) == (3, "")
    assert result.error == f"recording needs {missing}, which is not installed"
    assert result.hint == install_command("gpu")
