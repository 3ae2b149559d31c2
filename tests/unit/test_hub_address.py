"""Addresses that people paste, and the names that they stand for."""

from __future__ import annotations

import pytest

from vramplan.errors import UsageError
from vramplan.sources.hub_address import read_address, repository_named

NOWHERE: dict[str, str] = {}


@pytest.mark.parametrize(
    "text",
    [
        "https://huggingface.co/Org/na.me_1",
        "https://huggingface.co/Org/na.me_1/",
        "https://huggingface.co/Org/na.me_1/tree/main",
        "https://huggingface.co/Org/na.me_1/tree/main/",
        "https://huggingface.co/Org/na.me_1/tree/fp16/vae",
        "https://huggingface.co/Org/na.me_1/blob/main/config.json",
        "https://huggingface.co/Org/na.me_1?library=diffusers#files",
        "http://www.huggingface.co/Org/na.me_1//",
        "HTTPS://HuggingFace.co/Org/na.me_1",
        "https://hf.co/Org/na.me_1",
        "hf.co/Org/na.me_1",
        "huggingface.co/Org/na.me_1/tree/main",
        "www.huggingface.co/Org/na.me_1",
        "  https://huggingface.co/Org/na.me_1 ",
    ],
)
def test_a_page_of_a_repository_names_it(text) -> None:
    assert read_address(text, NOWHERE) == "hf:Org/na.me_1"


@pytest.mark.parametrize("shows", ["blob", "resolve", "raw"])
def test_a_page_of_a_gguf_file_names_the_file(shows) -> None:
    text = f"https://huggingface.co/o/n/{shows}/main/q4/my%20model.Q4_K_M.GGUF?download=true"
    assert read_address(text, NOWHERE) == "hf:o/n:q4/my model.Q4_K_M.GGUF"


def test_the_hub_that_the_environment_names_is_one_too() -> None:
    environment = {"HF_ENDPOINT": "https://mirror.example:8443/"}
    assert read_address("https://mirror.example:8443/o/n", environment) == "hf:o/n"
    with pytest.raises(UsageError, match="not the address of a model"):
        read_address("https://mirror.example:8443/o/n", NOWHERE)


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("https://ollama.com/library/llava:7b", "ollama:llava:7b"),
        ("ollama.com/library/llava/tags", "ollama:llava"),
        ("https://ollama.com/somebody/model:tag", "ollama:somebody/model:tag"),
    ],
)
def test_a_page_of_ollamas_library_names_the_model(text, name) -> None:
    assert read_address(text, NOWHERE) == name


@pytest.mark.parametrize(
    "text", ["sd15", "a/b", "hf:a/b", "./huggingface.co/a", "/models/x.gguf", "huggingface.co", ""]
)
def test_what_is_no_address_is_left_alone(text) -> None:
    assert read_address(text, NOWHERE) is None


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("https://example.com/o/n", "not the address of a model"),
        ("https://huggingface.co/gpt2", "not the address of a model"),
        ("https://huggingface.co/o/..", "not the address of a model"),
        ("https://huggingface.co/datasets/o/n", "a data set, not a model"),
        ("https://huggingface.co/spaces/o/n", "a space, not a model"),
        ("https://huggingface.co/o/n/blob/v2/m.gguf", "only the revision main is read"),
        ("https://ollama.com/", "not the address of a model"),
        ("https://huggingface.co/o/" + "n" * 3000, "not the address of a model"),
        ("http://[::1", "not the address of a model"),
        ("http://huggingface.co:99999999/o/n", "not the address of a model"),
    ],
)
def test_an_address_of_something_else_is_refused(text, said) -> None:
    with pytest.raises(UsageError, match=said):
        read_address(text, {"HF_ENDPOINT": "http://[::1"})


@pytest.mark.parametrize(
    ("text", "repository"),
    [
        ("hf:o/n", "o/n"),
        ("HF:O/N/", "O/N"),
        ("o/n", "o/n"),
        ("hf:o/n:m.gguf", None),
        ("hf:o", None),
        ("a/b/c", None),
        ("./o/n", None),
        ("o/n\n", "o/n"),
    ],
)
def test_a_repository_is_known_by_its_form(text, repository) -> None:
    assert repository_named(text) == repository


def test_what_ollama_run_takes_of_the_hub_is_ollamas() -> None:
    assert (
        read_address("hf.co/org/na.me-GGUF:Q4_K_M", NOWHERE) == "ollama:hf.co/org/na.me-GGUF:Q4_K_M"
    )
    with pytest.raises(UsageError, match="not the address of a model"):
        read_address("https://hf.co/org/name:Q4_K_M", NOWHERE)
