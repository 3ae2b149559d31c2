"""The model files of this machine: in Ollama's store, in LM Studio's, and in folders."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from vramplan.engines.ggml.open import OLLAMA

LM_STUDIO = "LM Studio"


def stored_models() -> Iterator[tuple[str, str]]:
    """Yield whose each model of the stores is, and what `open_model` takes for it."""
    from vramplan.sources.model_folder import files_below, lm_studio_folder
    from vramplan.sources.ollama_store import installed_names

    for name in installed_names():
        yield "Ollama", f"{OLLAMA}{name}"
    folder = lm_studio_folder()
    if folder is not None:
        for path in files_below(folder):
            yield LM_STUDIO, str(path)


def models_below(folders: Sequence[Path]) -> Iterator[tuple[str, str]]:
    """Yield the same of the model files in folders and below them."""
    from vramplan.sources.model_folder import files_below

    for folder in folders:
        for path in files_below(folder):
            yield str(folder), str(path)


def is_installed(name: str) -> bool:
    """Return whether Ollama has a model of the name here, whatever became of its files."""
    from vramplan.sources.ollama_store import is_installed as find

    return find(name)
