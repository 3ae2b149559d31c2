"""Ollama's environment variables, as Ollama itself reads them."""

from __future__ import annotations

import pytest

from vramplan.errors import SourceError
from vramplan.sources.ollama_environment import read_environment


def test_an_empty_environment_sets_nothing() -> None:
    found = read_environment({"OLLAMA_CONTEXT_LENGTH": "", "OLLAMA_MODELS": "/x"})
    assert (found.settings, found.overhead_bytes, found.used) == ({}, 0, ())


@pytest.mark.parametrize(
    ("name", "text", "settings"),
    [
        ("OLLAMA_CONTEXT_LENGTH", "8192", {"context": 8192}),
        ("OLLAMA_CONTEXT_LENGTH", ' "8192" ', {"context": 8192}),
        ("OLLAMA_CONTEXT_LENGTH", "0", {}),
        ("OLLAMA_CONTEXT_LENGTH", "8k", {}),
        ("OLLAMA_CONTEXT_LENGTH", "-1", {}),
        ("OLLAMA_CONTEXT_LENGTH", "9" * 4000, {}),
        ("OLLAMA_CONTEXT_LENGTH", "\u0663", {}),
        ("OLLAMA_NUM_PARALLEL", "4", {"parallel": 4}),
        ("OLLAMA_NUM_PARALLEL", "0", {}),
        ("OLLAMA_KV_CACHE_TYPE", "Q4_0", {"kv_type": "q4_0"}),
        ("OLLAMA_FLASH_ATTENTION", "1", {"flash_attention": "on"}),
        ("OLLAMA_FLASH_ATTENTION", "false", {"flash_attention": "off"}),
        ("OLLAMA_FLASH_ATTENTION", "maybe", {"flash_attention": "on"}),
    ],
)
def test_one_variable(name: str, text: str, settings: dict[str, object]) -> None:
    found = read_environment({name: text})
    assert found.settings == settings
    assert bool(found.used) is bool(settings)


def test_memory_is_set_aside_in_bytes() -> None:
    assert read_environment({"OLLAMA_GPU_OVERHEAD": "1073741824"}).overhead_bytes == 1 << 30
    assert read_environment({"OLLAMA_GPU_OVERHEAD": "1GiB"}).overhead_bytes == 0


def test_a_type_that_no_engine_has_is_refused() -> None:
    with pytest.raises(SourceError, match="OLLAMA_KV_CACHE_TYPE=q8: the engine has no such type"):
        read_environment({"OLLAMA_KV_CACHE_TYPE": "q8"})
