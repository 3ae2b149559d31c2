"""``vramplan init``: a project's first file, and the way from there to one that passes."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shlex
import stat
import sys
from pathlib import Path

import pytest

from vramplan.catalog.project import load_project
from vramplan.catalog.yaml_reader import parse_yaml
from vramplan.report.project_file import write_text

_PATH = Path(__file__).parents[1] / "sparse_gguf.py"
_SPEC = importlib.util.spec_from_file_location("sparse_gguf", _PATH)
sparse = sys.modules.setdefault("sparse_gguf", importlib.util.module_from_spec(_SPEC))
_SPEC.loader.exec_module(sparse)

FILE = "vramplan.yaml"


@pytest.fixture(autouse=True)
def home(tmp_path_factory, monkeypatch) -> Path:
    """A home without models; what a machine has of its own is not looked at."""
    home = tmp_path_factory.mktemp("home")
    monkeypatch.setenv("HOME", str(home))
    for name in ("HF_HOME", "HF_HUB_CACHE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("OLLAMA_MODELS", str(home / "ollama"))
    return home


def model(layers: int = 2, name: str = "Some") -> object:
    made = sparse.language_model(layers=layers, words=1000)
    made.general = {"general.name": name}
    return sparse.dense_layers(made)


def save(folder: Path) -> None:
    """Save a small autoencoder as diffusers does: its config, and the headers of no weights."""
    folder.mkdir(parents=True)
    config = {"_class_name": "AutoencoderKL", "sample_size": 64, "latent_channels": 4}
    (folder / "config.json").write_text(json.dumps(config))
    tensor = {"dtype": "F16", "shape": [16, 3, 3, 3], "data_offsets": [0, 864]}
    header = json.dumps({"encoder.conv_in.weight": tensor}).encode()
    data = len(header).to_bytes(8, "little") + header + bytes(864)
    (folder / "diffusion_pytorch_model.safetensors").write_bytes(data)


def targets(file: str = FILE) -> list[str]:
    return [one.text for one in load_project(Path(file)).targets]


def test_with_nothing_found_it_is_a_sample_that_passes(run) -> None:
    done = run("init")
    assert (done.code, done.err) == (0, "")
    assert done.out == (
        "vramplan.yaml: sd15 (a sample: nothing was found here) on 8gb, 12gb\n"
        "next: vramplan check\n"
    )
    assert targets() == ["sd15"]
    assert run("check").code == 0
    assert run("plan").out == "nothing to change: all of vramplan.yaml passes\n"
    assert run("catalog", "validate", FILE).code == 0


@pytest.mark.parametrize(
    ("card", "sample"), [("4gb", "sd15"), ("2GiB", "sd15-vae"), ("700MiB", "log-anomaly-ae")]
)
def test_the_sample_is_one_that_fits_the_cards(run, card, sample) -> None:
    assert run("init", "--card", card).code == 0
    assert targets() == [sample]
    assert run("check").code == 0


def test_each_comment_says_what_is_right(run) -> None:
    """What stands there behind a sign can be taken in: it is what the file takes."""
    assert run("init").code == 0
    text = Path(FILE).read_text()
    taken_in = re.sub(
        r"(?m)^( *)# ((?:-|  (?:name|settings):|settings:|together:|margin:) ?.*)$", r"\1\2", text
    )
    assert taken_in.count("#") < text.count("#") - 5
    Path(FILE).write_text(taken_in)
    project = load_project(Path(FILE))
    assert [one.label for one in project.targets] == ["sd15", "sd15", "chat"]
    assert project.margin_bytes == 500 << 20


def test_what_is_there_already_stays(run, tmp_path) -> None:
    path = tmp_path / FILE
    path.write_text("targets: [sdxl]\n")
    done = run("init")
    assert (done.code, done.out) == (2, "")
    assert done.error == "vramplan.yaml: is there already"
    assert "--force" in done.hint
    assert path.read_text() == "targets: [sdxl]\n"
    assert run("init", "--force").code == 0
    assert targets() == ["sd15"]


def test_what_is_read_only_stays_even_so(run, tmp_path) -> None:
    path = tmp_path / FILE
    path.write_text("targets: [sdxl]\n")
    path.chmod(stat.S_IRUSR)
    assert "read-only" in run("init", "--force").error or os.getuid()
    assert path.read_text() == "targets: [sdxl]\n"
    path.unlink()
    path.mkdir()
    assert "it is a folder" in run("init", "--force").error


def test_a_link_stays_one(run, tmp_path) -> None:
    (tmp_path / FILE).symlink_to(tmp_path / "elsewhere")
    assert run("init").code == 0
    assert (tmp_path / FILE).is_symlink()
    assert "sd15" in (tmp_path / "elsewhere").read_text()


def test_the_machines_gpu_goes_by_its_name(run, driver, gpu) -> None:
    driver(
        gpu(name="NVIDIA GeForce RTX 3060", total=12288 << 20),
        gpu(name="NVIDIA GeForce RTX 3060", uuid="GPU-1", total=12288 << 20),
        gpu(name="NVIDIA Unheard Of", uuid="GPU-2", total=20480 << 20, reserved=480 << 20),
    )
    done = run("init")
    assert done.out.endswith("on rtx-3060-12gb, 20000MiB\nnext: vramplan check\n")
    assert load_project(Path(FILE)).cards == ("rtx-3060-12gb", "20000MiB")
    assert "  - rtx-3060-12gb  # this machine's NVIDIA GeForce RTX 3060\n" in Path(FILE).read_text()
    assert run("check").code == 0


def test_targets_and_cards_may_be_named(run) -> None:
    done = run("init", "sdxl[offload=model]", "llava:7b", "--card", "8gb", "--card", "auto")
    assert done.code == 0
    project = load_project(Path(FILE))
    assert [one.text for one in project.targets] == ["sdxl", "llava:7b"]
    assert project.targets[0].settings == {"offload": "model"}
    assert project.cards == ("8gb", "auto")


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (("sd51",), "unknown pipeline 'sd51'"),
        (("sd15[bacth=2]",), "sd15: unknown setting 'bacth'"),
        (("sd15[context=2]",), "sd15 has no setting 'context'"),
        (("--card", "99gb"), "no card of the class 99gb"),
        (("sd15", "nowhere.gguf"), "nowhere.gguf"),
        (("two\nlines.gguf",), "cannot be written into a file"),
    ],
)
def test_what_nobody_knows_is_refused_and_nothing_written(run, tmp_path, words, error) -> None:
    done = run("init", *words)
    assert (done.code, done.out) == (2, "")
    assert error in done.error
    assert list(tmp_path.iterdir()) == []


# ---------------------------------------------------------------------------------- what is found
def test_the_models_of_this_folder_are_judged_and_those_of_stores_are_not(
    run, tmp_path, home
) -> None:
    (tmp_path / "deep" / "er").mkdir(parents=True)
    sparse.write(tmp_path / "some.gguf", model())
    sparse.write(tmp_path / "deep" / "er" / "odd #1: name.gguf", model())
    save(tmp_path / "deep" / "vae")
    for name in (".hidden", "node_modules"):
        save(tmp_path / name / "vae")
    (tmp_path / "broken.gguf").write_bytes(b"GGUF" + bytes(20))
    (tmp_path / "config.json").write_text("{}")  # many programs have one
    repository = home / ".cache" / "huggingface" / "hub" / "models--org--name"
    (repository / "snapshots" / "1234").mkdir(parents=True)
    sparse.write(repository / "snapshots" / "1234" / "cached.gguf", model())
    save(home / ".cache/huggingface/hub/models--org--vae/snapshots/5678")
    (home / ".cache/huggingface/hub/models--org--half/snapshots/9").mkdir(parents=True)
    done = run("init", "--card", "8gb")
    assert done.code == 0
    assert set(targets()) == {"some.gguf", "deep/er/odd #1: name.gguf", "deep/vae"}
    text = Path(FILE).read_text()
    assert "# - hf:org/name:cached.gguf  # the hub's cache" in text
    assert "# - hf:org/vae  # the hub's cache" in text
    assert "half" not in text
    assert "#   broken.gguf: " in text
    assert run("check").code == 0
    # what stands there as a comment can be judged too, without a network
    assert run("check", "hf:org/name:cached.gguf", "hf:org/vae", "--card", "8gb").code == 0


def test_without_models_here_those_of_the_stores_are_judged(run, home) -> None:
    studio = home / ".lmstudio" / "models" / "pub" / "Small-GGUF"
    studio.mkdir(parents=True)
    for number in range(10):
        sparse.write(studio / f"small-{number}.gguf", model())
    assert run("init", "--card", "8gb").code == 0
    assert targets() == [f"lmstudio:pub/Small-GGUF/small-{number}.gguf" for number in range(8)]
    assert Path(FILE).read_text().count("# - ") >= 2
    assert run("check").code == 0


@pytest.mark.parametrize(
    "text",
    ["sd15", "llava:7b", "8gb", "on", "12:30", "1e6", "-1", "a: b", "a #b", "[x]", "sd15[a=b]",
     "x'y", 'x"y', "ü.gguf", "./a b", "null", "~", "*x", "&x", "!x", "%x", "@x", "`x", "?", "a:",
     "{a}", "11.6GiB", "hf:o/n:f.gguf", "C:\\x"],
)  # fmt: skip
def test_text_is_written_so_that_it_is_read_back(text) -> None:
    data = parse_yaml(f"targets:\n  - {write_text(text)}  # said\n", "x").data
    assert data == {"targets": [text]}


@pytest.mark.parametrize("name", ["a\x1b]0;t\x07b", "x" * 200, "new\nline", "bad\udcff", "-lead"])
def test_a_strangers_file_name_does_no_harm(run, tmp_path, name) -> None:
    sparse.write(tmp_path / f"{name}.gguf", model(name="# \x1b[2J\ntargets: [evil]"))
    assert run("init", "--card", "8gb").code == 0
    text = Path(FILE).read_text(encoding="utf-8")
    assert "\x1b" not in text
    assert "\ntargets: [evil]" not in text
    assert targets() in (["sd15"], [f"{name}.gguf"])
    assert run("check").code == 0


# ---------------------------------------------------------------------- from there to a pass
def next_command(out: str) -> list[str]:
    """Return the command that a person is told to give next."""
    match = re.search(r"(?m)^next:? +vramplan (.+)$", out)
    assert match, out
    return shlex.split(match[1])


def follow_plan(shown: str) -> int:
    """Write the first way's TARGET of each plan into the file; return how many there were.

    A plan begins with the pipeline's name, and its first way is numbered so.
    """
    path, count = Path(FILE), 0
    for name, target in re.findall(
        r"(?ms)^([\w.:-]+)(?: \([^)]*\))? on [^\n]*\n(?:(?!as TARGET).)*?as TARGET: ([^\n]*)$",
        shown,
    ):
        (said,) = shlex.split(target)
        old = re.search(
            rf"(?m)^  - \"?{re.escape(name)}(?:\[.*\])?\"?(?:  #.*)?$", path.read_text()
        )
        assert old, (name, path.read_text())
        path.write_text(path.read_text().replace(old[0], f"  - {write_text(said)}"))
        count += 1
    return count


@pytest.mark.parametrize(
    ("named", "card", "failing"),
    [
        (("sdxl",), "8gb", 1),
        pytest.param(("sdxl", "sd15[batch=8]"), "6gb", 2, marks=pytest.mark.slow),
        (("sdxl", "llava:7b[context=32768]"), "8gb", 2),
    ],
)
def test_who_follows_what_is_printed_comes_to_a_check_that_passes(
    run, named, card, failing
) -> None:
    """Whoever was told no more than that it must run on 8 GB."""
    begun = run("init", *named, "--card", card)
    first = run(*next_command(begun.out))
    assert first.code == 1
    plans = run(*next_command(first.out))
    assert plans.code == 0
    assert follow_plan(plans.out) == failing
    assert " ".join(plans.out.split()).endswith("then: vramplan check")
    last = run("check")
    assert (last.code, "next" in last.out) == (0, False), last.out
    assert run("plan").out == "nothing to change: all of vramplan.yaml passes\n"


def test_what_cannot_be_made_to_fit_says_so(run) -> None:
    assert run("init", "llava-1.5-7b-hf", "--card", "4gb").code == 0
    plans = run(*next_command(run("check").out))
    assert plans.code == 1
    assert "take another target or a larger card into vramplan.yaml" in " ".join(plans.out.split())
    found = run("plan", "--json")
    (plan,) = found.json["result"]["plans"]
    assert plan["missing_bytes"] > 0
