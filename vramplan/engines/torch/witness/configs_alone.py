"""Meets `from_pretrained` of diffusers and transformers with configs alone: ``--weights none``.

A name of the hub becomes a folder of configs (`config_folders`). All else is the libraries' own
code.
"""

from __future__ import annotations

import functools
import inspect
import os
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from vramplan.engines.torch.witness.config_folders import FOLDERS, is_ours, is_repository

#: what loads something by a name or a folder, and takes that first
_METHODS = ("from_pretrained", "load_config", "get_config_dict")
#: the classes that load weights themselves; all other models' go through theirs
_MODELS = ("PreTrainedModel", "ModelMixin")
#: the classes that load tokenizers: all others' go through theirs
_TOKENIZERS = ("PreTrainedTokenizerBase", "AutoTokenizer")
_FIRST = ("pretrained_model_name_or_path", "pretrained_model_or_path", "pretrained_model_name")


def meet(module: ModuleType) -> None:
    """Have the classes of a module load what we have for a name."""
    for kind in list(vars(module).values()):
        if not isinstance(kind, type) or kind.__module__ != module.__name__:
            continue
        for name in _METHODS:
            method = vars(kind).get(name)
            if isinstance(method, classmethod):
                setattr(kind, name, _met(method.__func__, kind.__name__))
    if module.__name__ == "transformers.utils.hub":
        _meet_files(module)


def _met(original: Callable[..., Any], kind: str) -> Any:
    """Return a classmethod that finds a folder for the name that it is given, and goes on."""

    @functools.wraps(original)
    def load(cls: type, *words: Any, **given: Any) -> Any:
        key = next((one for one in _FIRST if one in given), None)
        asked = words[0] if words else given.pop(key, None) if key else None
        rest = words[1:]
        if not isinstance(asked, str | os.PathLike):
            return original(cls, asked, *rest, **given)
        folder = FOLDERS.place(os.fspath(asked))
        given.pop("variant", None)  # of files that are not there
        if original.__name__ == "from_pretrained":
            if kind in _TOKENIZERS:
                return _load_tokenizer(original, cls, folder, rest, given)
            if kind in _MODELS:
                of_diffusers = kind == "ModelMixin"
                folder, given = FOLDERS.hollow(cls, folder, given, of_diffusers=of_diffusers)
        return original(cls, folder, *rest, **given)

    return classmethod(load)


def _load_tokenizer(
    original: Callable[..., Any], cls: Any, folder: str, rest: Any, given: dict[str, Any]
) -> Any:
    """Load a tokenizer, or a stand-in where its files are not there.

    Classes of transformers 5 make pieces of their own from a vocabulary; a stand-in keeps its own.
    """
    from transformers import PreTrainedTokenizerFast

    name = "" if cls.__name__ == "AutoTokenizer" else str(cls.__name__)
    made_for = FOLDERS.tokenizer(folder, given.get("subfolder") or "", name)
    if made_for is not None:
        given = {key: value for key, value in given.items() if key != "subfolder"}
        folder = made_for
    try:
        made = original(cls, folder, *rest, **given)
    except Exception:
        has_pieces = (Path(folder) / "tokenizer.json").is_file()
        if not (is_ours(folder) and has_pieces) or cls is PreTrainedTokenizerFast:
            raise
        made = PreTrainedTokenizerFast.from_pretrained(folder)  # slow ones want a model's file
    pieces = Path(folder) / (given.get("subfolder") or "") / "tokenizer.json"
    if is_ours(folder) and pieces.is_file() and hasattr(made, "_tokenizer"):
        from tokenizers import Tokenizer

        made._tokenizer = Tokenizer.from_file(str(pieces))
    return made


def _meet_files(module: Any) -> None:
    """Have transformers look for single files of a name in the folder that stands for it."""
    original = module.cached_files

    taken = inspect.signature(original)

    @functools.wraps(original)
    def cached_files(*words: Any, **given: Any) -> Any:
        bound = taken.bind(*words, **given)
        asked = str(bound.arguments["path_or_repo_id"])
        if bound.arguments.get("repo_type") in (None, "model") and is_repository(asked):
            bound.arguments["path_or_repo_id"] = FOLDERS.known(asked) or asked
            bound.arguments["local_files_only"] = True
        return original(*bound.args, **bound.kwargs)

    module.cached_files = cached_files
