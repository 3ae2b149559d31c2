"""Names that people have for what is in the catalogue: the hub's, without asking it."""

from __future__ import annotations

import urllib.request

import pytest

from vramplan.ask.targets import find_target, open_catalog

NAMES = [
    ("stabilityai/sd-vae-ft-mse", "sd15-vae"),
    ("stabilityai/stable-diffusion-xl-base-1.0", "sdxl"),
    ("stable-diffusion-v1-5/stable-diffusion-v1-5", "sd15"),
    ("runwayml/stable-diffusion-v1-5", "sd15"),
    ("llava-hf/llava-1.5-7b-hf", "llava-1.5-7b-hf"),
    ("liuhaotian/llava-v1.5-7b", "llava-v1.5-7b"),
    ("facebook/vit-mae-base", "vit-mae-base"),
]


@pytest.fixture(autouse=True)
def offline(monkeypatch, tmp_path) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("the network was asked")

    monkeypatch.setattr(urllib.request, "build_opener", refuse)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("HF_ENDPOINT", raising=False)


@pytest.mark.parametrize(
    "form",
    [
        "{}",
        "hf:{}",
        "https://huggingface.co/{}",
        "https://huggingface.co/{}/",
        "http://www.huggingface.co/{}/tree/main/",
        "hf.co/{}",
    ],
)
@pytest.mark.parametrize(("repository", "name"), NAMES)
@pytest.mark.usefixtures("run")
def test_a_repository_is_the_catalogues_entry(form, repository, name) -> None:
    catalog = open_catalog()
    for text in (repository, repository.upper(), repository.title()):
        said: list[str] = []
        assert find_target(form.format(text), catalog, remark=said.append).name == name
        assert len(said) == 1
        assert said[0].endswith(f"the catalogue's {name}")


@pytest.mark.usefixtures("run")
def test_every_source_on_the_hub_or_in_a_library_is_a_name() -> None:
    catalog = open_catalog()
    addresses = {
        one.source: one.name
        for one in catalog.pipelines.values()
        if one.source.startswith(("https://huggingface.co/", "https://ollama.com/"))
    }
    assert len(addresses) > 5
    for address, name in addresses.items():
        assert find_target(address, catalog).name == name


def test_a_verdict_says_which_entry_was_judged(run) -> None:
    words = ["--card", "8gb", "--json"]
    ours = run("check", "sd15-vae", *words)
    theirs = run("check", "hf:stabilityai/sd-vae-ft-mse", *words)
    # alike, but for the TARGET as it was given
    assert theirs.out.replace("hf:stabilityai/sd-vae-ft-mse", "sd15-vae") == ours.out
    assert theirs.err == "note: hf:stabilityai/sd-vae-ft-mse: the catalogue's sd15-vae\n"


def test_a_folder_of_that_name_goes_before(run, tmp_path) -> None:
    folder = tmp_path / "stabilityai" / "sd-vae-ft-mse"
    folder.mkdir(parents=True)
    result = run("check", "stabilityai/sd-vae-ft-mse", "--card", "8gb")
    assert result.error == "stabilityai/sd-vae-ft-mse: no GGUF file in it"


@pytest.mark.usefixtures("run")
def test_a_pipeline_of_yours_wins_a_repository_over_ours(tiny, tmp_path) -> None:
    text = tiny.read_text(encoding="utf-8") + "repositories: [StabilityAI/sd-vae-ft-mse]\n"
    tiny.write_text(text, encoding="utf-8")
    catalog = open_catalog([tmp_path])
    assert find_target("hf:stabilityai/SD-VAE-FT-MSE", catalog).name == "tiny:1b"
    assert find_target("sd15-vae", catalog).name == "sd15-vae"


def test_a_repository_that_is_misspelt_in_a_file_is_refused(run, tiny) -> None:
    text = tiny.read_text(encoding="utf-8") + "repositories: [no-owner]\n"
    tiny.write_text(text, encoding="utf-8")
    assert "repositories[0]: 'no-owner' is not accepted" in run("check", tiny).error


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        (
            "stabilityai/sd-vae-ft-mze",
            (
                "did you mean 'stabilityai/sd-vae-ft-mse'? a model on the hub is "
                "hf:stabilityai/sd-vae-ft-mze, a GGUF file there "
                "hf:stabilityai/sd-vae-ft-mze:FILE.gguf"
            ),
        ),
        ("nobody/x", "a model on the hub is hf:nobody/x, a GGUF file there hf:nobody/x:FILE.gguf"),
    ],
)
def test_a_repository_nobody_knows_has_a_hint(run, text, hint) -> None:
    result = run("check", text, "--card", "8gb")
    assert (result.code, result.error) == (2, f"unknown pipeline {text!r}")
    assert result.hint == hint


def test_show_lists_the_repositories(run) -> None:
    shown = run("catalog", "show", "hf:runwayml/stable-diffusion-v1-5").out
    assert "on the hub: stable-diffusion-v1-5/stable-diffusion-v1-5, runwayml/" in shown


def test_a_model_of_ollamas_library_is_known_in_other_quantisations(run) -> None:
    for name, quantisation, gigabytes in (
        ("qwen3:8b-q8_0", "q8_0", 8.9),  # as ollama.com/library lists their downloads
        ("llama3.1:8b-instruct-q5_K_M", "q5_k_m", 5.7),
        ("qwen2.5:7b-instruct-fp16", "f16", 15),
    ):
        shown = run("estimate", name, "--json").json["result"]
        (model,) = shown["components"]
        assert (shown["pipeline"], model["dtype"]) == (name, quantisation)
        file_bytes = model["weights_bytes"] + 6e6  # a header with its words
        assert round(file_bytes / 1e9, 1 if gigabytes < 10 else None) == gigabytes
    refused = run("check", "qwen3:9b-q8_0")
    assert "unknown pipeline 'qwen3:9b-q8_0'" in refused.error
    assert "? ollama:qwen3:9b-q8_0 looks it up in Ollama's library" in refused.err


def test_weights_of_a_file_that_nobody_has_read_are_not_called_exact(run) -> None:
    """The library's files are seen in a log, or described by what llama-quantize would write."""
    for name, origin in (
        ("llava:7b", "exact"),
        ("qwen3:32b", "exact"),
        ("qwen3:32b-q8_0", "assumed"),
        ("llama3.1:8b", "assumed"),
    ):
        terms = run("estimate", name, "--card", "48gb", "--json").json["result"]["terms"]
        found = {term["origin"] for term in terms if term["kind"] == "weights"}
        assert found == {origin}, name


@pytest.mark.parametrize(
    ("asked", "called"),
    [
        ("sd1.5", "sd15"),
        ("SD 1.5", "sd15"),
        ("stable diffusion 1.5", "sd15"),
        ("FLUX.1 dev", "flux1-dev"),
        ("qwen_image", "qwen-image"),
    ],
)
def test_a_name_may_be_written_with_other_signs_between_its_words(run, asked, called) -> None:
    result = run("estimate", asked, "--json")
    assert result.json["result"]["pipeline"] == called
    assert f"{asked}: the catalogue's {called}" in result.err


def test_a_name_that_two_are_alike_to_is_not_taken(run) -> None:
    assert "did you mean" in run("estimate", "llama 3.1 8b").hint


def test_a_folder_goes_before_a_name_that_is_alike(run, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sd 1.5").mkdir()
    assert "no GGUF file in it" in run("estimate", "sd 1.5").error
