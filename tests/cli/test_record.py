"""``vramplan record``: where a tape goes, what is said meanwhile, what is compared.

The recorder has tests of its own; here a tape is made up, so that no test waits for torch.
"""

from __future__ import annotations

import importlib
import json
import re
import shutil
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

from vramplan.catalog import profiles_dir
from vramplan.engines.torch.tape.format import SCHEMA, write_tape
from vramplan.errors import RecordingError

TAPE = {"schema": SCHEMA, "pipeline": "mine", "routines": {}}

PIPELINE = """\
name: mine
title: Mine
summary: A VAE for tests.
runtime: diffusers
source: made up
tape: mine-tape
settings: {image: 512, dtype: fp16}
components: [{name: vae, class: diffusers.AutoencoderKL}]
"""


@pytest.fixture
def recorder(monkeypatch) -> dict[str, object]:
    """Stand in for the recorder; what is in the returned mapping is what it records."""
    tape = dict(TAPE)

    sample = SimpleNamespace(keep_main=True, facts={}, numbers={"batch": 1})

    def record_tape(name, recipe, progress):
        assert recipe.name == name
        for step in ("dtype=fp16  run 1 of 2", "dtype=fp16  run 2 of 2", "finding the sizes"):
            progress(step)
        return tape

    def stand_in(name: str, **functions) -> None:
        module = ModuleType(name)
        vars(module).update(functions)
        monkeypatch.setitem(sys.modules, name, module)

    stand_in("vramplan.engines.torch.record.recorder", record_tape=record_tape)
    stand_in(
        "vramplan.engines.torch.record.recipes.registry",
        find_recipe=lambda pipeline: SimpleNamespace(name=pipeline.name, sessions=[({}, [sample])]),
    )
    stand_in("vramplan.engines.torch.record.proof", prove=lambda *_: None)
    monkeypatch.setattr("vramplan.engines.torch.libraries.LIBRARIES", ())
    for variable in ("DIFFUSERS_VERBOSITY", "TRANSFORMERS_VERBOSITY", "HF_HUB_OFFLINE"):
        monkeypatch.setenv(variable, "as it was")
    return tape


@pytest.fixture
def own(tmp_path) -> Path:
    """A catalogue of one's own with a torch pipeline."""
    folder = tmp_path / "own"
    (folder / "pipelines").mkdir(parents=True)
    (folder / "pipelines" / "mine.yaml").write_text(PIPELINE, encoding="utf-8")
    return folder


@pytest.mark.usefixtures("recorder")
def test_the_tape_goes_into_the_pipelines_own_catalogue(run, own: Path) -> None:
    result = run("record", "mine", "--catalog", own)
    path = own / "tapes" / "mine-tape.json"
    assert (result.code, result.out) == (0, f"{path}\n")
    assert path.read_text(encoding="utf-8") == write_tape(TAPE)


@pytest.mark.usefixtures("recorder")
def test_progress_is_a_line_for_each_kind_of_run_in_a_log(run, own: Path) -> None:
    err = run("record", "mine", "--catalog", own).err
    assert err.splitlines() == [
        "recording: dtype=fp16",
        "recording: finding the sizes",
        "recording: proving",
        "0 KiB",
    ]


@pytest.mark.usefixtures("recorder")
def test_a_tape_that_cannot_be_proved_is_not_written(run, own: Path, monkeypatch) -> None:
    proved = []

    def prove(tape, recipe, sample) -> None:
        proved.append((tape, recipe.name, sample.numbers))
        raise RecordingError("mine at batch=1: event 7: the tape has 512, the code did 1024")

    monkeypatch.setattr(sys.modules["vramplan.engines.torch.record.proof"], "prove", prove)
    result = run("record", "mine", "--catalog", own)
    assert (result.code, result.out) == (2, "")
    assert "error: mine at batch=1: event 7" in result.err
    assert proved == [(TAPE, "mine", {"batch": 1})]
    assert not (own / "tapes").exists()


@pytest.mark.usefixtures("recorder")
def test_progress_is_one_line_that_goes_away_on_a_terminal(run, own: Path, monkeypatch) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    err = run("record", "mine", "--catalog", own).err
    assert "\r\x1b[2Kdtype=fp16 run 2 of 2" in err
    assert err.endswith("\r\x1b[2K0 KiB\n")


@pytest.mark.usefixtures("recorder")
def test_a_file_that_is_named_gets_its_tape_beside_it(run, tmp_path) -> None:
    (tmp_path / "mine.yaml").write_text(PIPELINE, encoding="utf-8")
    assert run("record", "mine.yaml").out == f"{Path('tapes/mine-tape.json')}\n"
    assert (tmp_path / "tapes" / "mine-tape.json").is_file()


@pytest.mark.usefixtures("recorder")
def test_output_says_where(run, own: Path, tmp_path) -> None:
    assert run("record", "mine", "--catalog", own, "-o", "x/y.json").out == "x/y.json\n"
    assert (tmp_path / "x" / "y.json").read_text(encoding="utf-8") == write_tape(TAPE)
    assert not (own / "tapes").exists()
    assert run("record", "mine", "--catalog", own, "-o", "-").out == write_tape(TAPE)


def test_check_compares_and_writes_nothing(run, recorder, own: Path) -> None:
    path = own / "tapes" / "mine-tape.json"
    words = ("record", "mine", "--catalog", own, "--check")
    result = run(*words)
    assert (result.code, result.out) == (1, "")
    assert result.err.endswith(f"{path}: no such tape\n")
    assert not path.exists()
    assert run(*words[:-1]).code == 0
    assert run(*words).code == 0
    recorder["pipeline"] = "changed"
    result = run(*words)
    assert result.code == 1
    assert "not what is recorded now" in result.err
    assert path.read_text(encoding="utf-8") == write_tape(TAPE)


@pytest.mark.usefixtures("recorder")
def test_another_dtype_has_a_tape_of_its_own(run, own: Path, monkeypatch) -> None:
    """In a file beside the default one's, which `--check` holds too."""
    entry = PIPELINE.replace("tape: mine-tape\n", "").replace(
        "fp16}\n", "fp16}\nconstraints: {dtype: {choices: [fp16, fp32]}}\n"
    )
    (own / "pipelines" / "mine.yaml").write_text(entry, encoding="utf-8")
    module = ModuleType("entry_tape")
    module.record_entry = lambda pipeline, _: f"{pipeline.defaults['dtype']}\n"
    monkeypatch.setitem(sys.modules, "vramplan.engines.torch.record.saved.entry_tape", module)
    registry = sys.modules["vramplan.engines.torch.record.recipes.registry"]
    monkeypatch.setattr(registry, "find_recipe", lambda _: None)
    words = ("record", "mine", "--catalog", own)
    assert run(*words, "--dtype", "fp32").code == 0
    assert (own / "tapes" / "mine.fp32.json").read_text(encoding="utf-8") == "fp32\n"
    assert run(*words, "--dtype", "fp32", "--check").code == 0
    assert run(*words, "--dtype", "fp16").code == 0
    assert (own / "tapes" / "mine.json").read_text(encoding="utf-8") == "fp16\n"
    result = run(*words, "--dtype", "bf16")
    assert result.code == 2
    assert "takes fp16, fp32" in result.err


def test_a_tape_for_every_dtype_has_none_for_one(run, own: Path) -> None:
    result = run("record", "mine", "--catalog", own, "--dtype", "fp32")
    assert result.code == 2
    assert "its tape is for every dtype" in result.err


@pytest.mark.usefixtures("recorder")
def test_what_the_libraries_are_told_is_left_to_the_user(run, own, monkeypatch) -> None:
    import os

    run("record", "mine", "--catalog", own)
    assert os.environ["DIFFUSERS_VERBOSITY"] == "as it was"
    monkeypatch.delenv("HF_HUB_OFFLINE")
    run("record", "mine", "--catalog", own)
    assert os.environ["HF_HUB_OFFLINE"] == "1"


@pytest.mark.usefixtures("recorder")
def test_an_installed_catalogue_is_not_written_to(run, tmp_path, monkeypatch) -> None:
    packed = tmp_path / "site-packages" / "vramplan" / "_profiles"
    shutil.copytree(profiles_dir(), packed)
    for module in (
        "vramplan.catalog.search",
        "vramplan.catalog.schema",
        "vramplan.ask.record",
    ):
        monkeypatch.setattr(f"{module}.profiles_dir", lambda: packed)
    result = run("record", "sd15")
    assert (result.code, result.out) == (2, "")
    assert result.error == "sd15: its tape is part of the installed vramplan"
    assert "-o FILE" in result.hint
    assert run("record", "sd15", "-o", "sd15.json").code == 0


@pytest.mark.usefixtures("recorder")
def test_a_pipeline_of_a_ggml_engine_has_no_tape(run) -> None:
    result = run("record", "llava:7b")
    assert (result.code, result.out) == (2, "")
    assert result.error == "llava:7b: ollama runs it, no tape is used"


def test_a_library_that_does_not_load_is_one_line(run, own: Path, monkeypatch) -> None:
    def fail(_name: str) -> None:
        raise OSError("libcudart.so.12: cannot open shared object file\nmore")

    monkeypatch.setattr("vramplan.engines.torch.libraries._is_installed", lambda _: True)
    monkeypatch.setattr(importlib, "import_module", _only_for("torch", fail))
    result = run("record", "mine", "--catalog", own)
    assert (result.code, result.out) == (3, "")
    assert result.error.startswith("torch is installed and cannot be imported: libcudart.so.12")
    assert "more" not in result.error


def _only_for(name: str, instead):
    original = importlib.import_module
    return lambda wanted, *rest: instead(wanted) if wanted == name else original(wanted, *rest)


@pytest.mark.slow
def test_recording_again_gives_the_tape_that_ships(process) -> None:
    pytest.importorskip("diffusers")
    result = process("record", "sd15-vae", "--check")
    assert (result.code, result.out) == (0, ""), result.err


# ---------------------------------------------------------------------- by how many bytes
def _sd15_vae() -> dict:
    return json.loads((profiles_dir() / "tapes" / "sd15-vae.json").read_text(encoding="utf-8"))


def test_check_says_by_how_many_bytes_the_peaks_change(run, recorder, own: Path) -> None:
    """Another library version: a table of a MiB more among the decoder's weights."""
    own_file = own / "pipelines" / "mine.yaml"
    shipped = profiles_dir() / "pipelines" / "sd15-vae.yaml"
    text = shipped.read_text(encoding="utf-8")
    for name in ("name", "tape"):
        text = re.sub(rf"^{name}: .*$", f"{name}: mine", text, flags=re.MULTILINE)
    own_file.write_text(re.sub(r"^(aliases|repositories): .*$", "", text, flags=re.MULTILINE))
    known = _sd15_vae()
    (own / "tapes").mkdir()
    (own / "tapes" / "mine.json").write_text(write_tape(known), encoding="utf-8")
    recorder.clear()
    recorder.update(_sd15_vae())
    words = ("record", "mine", "--catalog", own, "--check")
    assert (run(*words).code, run(*words).out) == (0, "")
    recorder["components"]["vae"]["modules"].append([f"{1 << 20}B"])
    result = run(*words)
    assert result.code == 1
    lines = result.out.splitlines()
    assert len(lines) == 9  # three figures on an architecture of each kind of kernel
    assert all("(+" in line for line in lines if "allocated peak" in line)
    assert " (+1,048,576 bytes)" in result.out
