"""Ollama's generations: the build of llama.cpp in each, and what it did itself.

Since 0.30 (June 2026) Ollama runs llama-server and names its build in LLAMA_CPP_VERSION. Before, it
had llama.cpp as a library, and from 0.6 on (March 2025) an engine of its own for one architecture
after another, whose graphs are not llama.cpp's. Sources: ollama/ollama at its tags, Makefile.sync
and LLAMA_CPP_VERSION (build), fs/ggml/ggml.go (OllamaEngineRequired, FlashAttention), llm/server.go
(NewLlamaServer), envconfig/config.go (ContextLength).
"""

from __future__ import annotations

import re

from vramplan.errors import UsageError
from vramplan.quick_dataclass import dataclass

PREFIX = "ollama-"
_WORD = r"ollama-v?(\d{1,3})\.(\d{1,3})(?:\.(\d{1,3}))?"

Version = tuple[int, int, int]
_LLAMA_SERVER: Version = (0, 30, 0)
#: from which version on there is which build. Those before 0.30 name a commit: the numbers are of
#: about its day (the last before llama.cpp's own fit, which Ollama did not use)
_BUILDS: tuple[tuple[Version, int], ...] = (
    ((0, 6, 0), 4800), ((0, 6, 6), 5140), ((0, 6, 7), 5190), ((0, 6, 8), 5240), ((0, 7, 0), 5360),
    ((0, 11, 5), 6120), ((0, 12, 4), 6650), ((0, 12, 6), 6770), ((0, 12, 11), 7000),
    ((0, 13, 2), 7210), ((0, 13, 3), 7340), ((0, 13, 5), 7400),
    ((0, 30, 0), 9452), ((0, 30, 1), 9479), ((0, 30, 4), 9493), ((0, 30, 5), 9509),
    ((0, 30, 9), 9626), ((0, 30, 10), 9672), ((0, 30, 11), 9781), ((0, 31, 0), 9840),
    ((0, 31, 2), 9888), ((0, 32, 2), 10069), ((0, 32, 3), 10091), ((0, 32, 6), 10242),
    ((0, 32, 8), 10353), ((0, 32, 10), 10380), ((0, 32, 14), 10434), ((0, 32, 15), 10488),
)  # fmt: skip
_NEWEST = _BUILDS[-1][0]
#: from which version on Ollama's own engine runs what, up to 0.24
_OWN: dict[Version, tuple[str, ...]] = {
    (0, 6, 0): ("gemma3",),
    (0, 6, 5): ("mistral3",),
    (0, 6, 7): ("llama4",),
    (0, 7, 0): ("mllama", "qwen25vl"),
    (0, 9, 3): ("gemma3n",),
    (0, 11, 0): ("gpt-oss", "gptoss"),
    (0, 12, 0): ("qwen3",),
    (0, 12, 2): ("qwen3moe",),
    (0, 12, 7): ("qwen3vl", "qwen3vlmoe"),
    (0, 13, 0): ("deepseek2", "deepseekocr"),
    (0, 13, 1): ("nomic-bert",),
    (0, 13, 4): ("olmo3",),
    (0, 13, 5): ("bert",),
    (0, 14, 3): ("glm4moelite", "lfm2"),
    (0, 15, 5): ("glmocr", "qwen3next"),
    (0, 17, 1): ("lfm2moe", "nemotron_h", "nemotron_h_moe", "qwen35", "qwen35moe"),
    (0, 20, 0): ("gemma4",),
    (0, 22, 0): ("laguna", "nemotron_h_omni"),
}
#: what llama.cpp never had a graph of: since 0.30 "unknown model architecture" (ollama#16547)
RUN_BY_OLLAMA_ALONE = ("mllama",)
#: from which version on it turns flash attention on for what, where nobody said anything
_FLASH: dict[Version, tuple[str, ...]] = {
    (0, 11, 8): ("gpt-oss", "gptoss"),
    (0, 12, 4): ("qwen3", "qwen3moe"),
    (0, 12, 6): ("gemma3",),
    (0, 12, 8): ("qwen3vl", "qwen3vlmoe"),
    (0, 13, 2): ("mistral3",),
    (0, 13, 4): ("olmo3",),
    (0, 13, 5): ("bert",),
    (0, 14, 3): ("glm4moelite", "lfm2"),
    (0, 15, 5): ("glmocr", "qwen3next"),
    (0, 17, 1): ("lfm2moe", "nemotron_h", "nemotron_h_moe", "qwen35", "qwen35moe"),
    (0, 20, 4): ("gemma4",),
    (0, 22, 0): ("nemotron_h_omni",),
}
#: from then on llama.cpp decides for what it runs
_FLASH_AUTO: Version = (0, 13, 4)
#: the context without a word, until it went by the card
_CONTEXTS: tuple[tuple[Version, int], ...] = (((0, 6, 7), 2048), ((0, 15, 5), 4096))


@dataclass(frozen=True, slots=True, kw_only=True)
class OllamaVersion:
    """A version of Ollama; `build` is llama.cpp's in it."""

    number: Version
    build: int

    @property
    def has_server(self) -> bool:
        """Return whether it runs llama-server, and nothing of its own."""
        return self.number >= _LLAMA_SERVER

    @property
    def context(self) -> int | None:
        """Return the context it takes without a word; None where that goes by the card."""
        return next((tokens for until, tokens in _CONTEXTS if self.number < until), None)

    def runs_itself(self, architecture: str, *, has_projector_file: bool) -> bool:
        """Return whether its own engine runs a model: one with a projector in the same file."""
        if self.has_server or has_projector_file:
            return False
        return self._is_since(_OWN, architecture)

    def flash_attention(self, architecture: str, *, is_own: bool) -> str:
        """Return whether there is flash attention where nobody said anything."""
        if self.has_server or (not is_own and self.number >= _FLASH_AUTO):
            return "auto"
        return "on" if self._is_since(_FLASH, architecture) else "off"

    def _is_since(self, table: dict[Version, tuple[str, ...]], architecture: str) -> bool:
        return any(since <= self.number and architecture in names for since, names in table.items())

    def __str__(self) -> str:
        """Return the version as Ollama writes it."""
        return ".".join(map(str, self.number))


def version_of(engine: str) -> OllamaVersion | None:
    """Return the version that ``ollama-0.24.0`` names; None for another word.

    Raises UsageError for a version of which nothing is known.
    """
    if not engine.startswith(PREFIX):
        return None
    match = re.fullmatch(_WORD, engine)
    if match is None:
        hint = f"write a version of Ollama's, such as {PREFIX}0.32.3"
        raise UsageError(f"unknown engine {engine!r}", hint=hint)
    number = (int(match[1]), int(match[2]), int(match[3] or 0))
    builds = [build for since, build in _BUILDS if since <= number]
    if not builds:
        first = ".".join(map(str, _BUILDS[0][0]))
        hint = f"name llama.cpp's build in it (llm/llama.cpp at its tag), or {PREFIX}{first}"
        raise UsageError(f"engine={engine}: of Ollama before {first} nothing is known", hint=hint)
    return OllamaVersion(number=number, build=builds[-1])


def said_of(version: OllamaVersion, architecture: str, *, is_own: bool) -> str:
    """Return what a reader must know of a version."""
    newest = ".".join(map(str, _NEWEST))
    if version.number > _NEWEST:
        return f"Ollama {version} is newer than what is known: llama.cpp's build of {newest}"
    if version.has_server:
        return f"Ollama {version} runs llama-server b{version.build}"
    if is_own:
        return (
            f"Ollama {version} runs {architecture} with an engine of its own, whose graphs are not "
            "known; it places layers by its own rules too, and what is left to it is answered as "
            "its llama-server does"
        )
    return (
        f"Ollama {version} has llama.cpp of about b{version.build}, and places layers by its own "
        "rules: what is left to it is answered as its llama-server does"
    )
