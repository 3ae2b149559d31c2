"""Answers what a program asks the hub for itself, under ``--weights none``: nothing is fetched.

Files come from the hub's cache, else from the folder of configs that stands for a name. Of weights
that are not there nothing is known but in files whose header is: those are met by `hollow_files`.
"""

from __future__ import annotations

import functools
import inspect
import json
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from types import ModuleType
from typing import Any

from vramplan.engines.torch.witness.config_folders import FOLDERS, remark

#: modules of huggingface_hub: what is asked for in them
MODULES = (
    "huggingface_hub.file_download",
    "huggingface_hub._snapshot_download",
    "huggingface_hub.hf_api",
)
_OF_WEIGHTS = (".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".gguf", ".onnx", ".msgpack")
_MOST_FILES = 10_000
_NO_COMMIT = "0" * 40
_WRITES_REFERENCE = "_cache_commit_hash_for_specific_revision"
#: what a model is for, by its class's name; as the hub calls it
_TASKS = (
    ("WhisperForConditionalGeneration", "automatic-speech-recognition"),
    ("ForCausalLM", "text-generation"),
    ("ForSequenceClassification", "text-classification"),
    ("ForMaskedLM", "fill-mask"),
    ("ForImageClassification", "image-classification"),
)


def meet(module: ModuleType) -> None:
    """Have a module of huggingface_hub look no further than what is here."""
    named: Any = module
    if module.__name__ == MODULES[0]:
        named.hf_hub_download = _met(named.hf_hub_download, _download)
        # what is answered here is no commit of the hub's: the cache shall not take it for one
        if hasattr(named, _WRITES_REFERENCE):
            setattr(named, _WRITES_REFERENCE, _without_ours(getattr(named, _WRITES_REFERENCE)))
    elif module.__name__ == MODULES[1]:
        named.snapshot_download = _met(named.snapshot_download, _snapshot)
    else:
        for name, answer in _ANSWERS.items():
            asked = getattr(named.HfApi, name, None)
            if asked is None:
                continue
            setattr(named.HfApi, name, _met(asked, answer))
            setattr(named, name, getattr(named.api, name))


def _met(original: Callable[..., Any], answer: Callable[..., Any]) -> Any:
    """Return what answers for models, and leaves data sets and spaces to the hub."""
    taken = inspect.signature(original)

    @functools.wraps(original)
    def ask(*words: Any, **given: Any) -> Any:
        bound = taken.bind(*words, **given)
        if bound.arguments.get("repo_type") not in (None, "model"):
            return original(*words, **given)
        return answer(original, bound)

    return ask


def _without_ours(write: Callable[..., Any]) -> Callable[..., None]:
    @functools.wraps(write)
    def write_others(folder: str, revision: str, commit: str) -> None:
        if commit != _NO_COMMIT:
            write(folder, revision, commit)

    return write_others


# ------------------------------------------------------------------------------------------ files
def _download(original: Callable[..., Any], asked: inspect.BoundArguments) -> str:
    """Return the path of a file of a repository, from the cache or from configs."""
    from huggingface_hub.errors import LocalEntryNotFoundError

    asked.arguments["local_files_only"] = True
    try:
        return str(original(*asked.args, **asked.kwargs))
    except (LocalEntryNotFoundError, OSError, ValueError):
        pass
    repository = str(asked.arguments["repo_id"])
    file = PurePosixPath(asked.arguments.get("subfolder") or "", asked.arguments["filename"])
    folder = FOLDERS.known(repository)
    if folder is not None and (Path(folder) / file).is_file():
        return str(Path(folder) / file)
    raise LocalEntryNotFoundError(_missed(repository, str(file), is_known=folder is not None))


def _missed(repository: str, file: str, *, is_known: bool) -> str:
    if file.endswith(_OF_WEIGHTS):
        message = (
            f"--weights none: {file} of {repository} is not in the hub's cache and nothing is "
            "downloaded: which tensors it has follows from no config. Fetch it "
            f"(hf download {repository} {file}), or its beginning with the header alone, or leave "
            "it out"
        )
        remark(message)
        return message
    if is_known:
        return f"--weights none: there is no {file} of {repository}, and nothing is downloaded"
    return _unknown(repository)


def _unknown(repository: str) -> str:
    message = (
        f"--weights none: {repository} is neither in vramplan's catalogue nor in the hub's cache, "
        f"and nothing is downloaded; hf download {repository} fetches what it has"
    )
    remark(message)
    return message


def _snapshot(original: Callable[..., Any], asked: inspect.BoundArguments) -> str:
    """Return a folder of a repository's files, from configs or from the cache."""
    from huggingface_hub.errors import LocalEntryNotFoundError

    repository = str(asked.arguments["repo_id"])
    folder = FOLDERS.known(repository)
    if folder is not None and not asked.arguments.get("local_dir"):
        return folder
    asked.arguments["local_files_only"] = True
    try:
        return str(original(*asked.args, **asked.kwargs))
    except (LocalEntryNotFoundError, OSError, ValueError):
        raise LocalEntryNotFoundError(_unknown(repository)) from None


# ---------------------------------------------------------------------------------- what is there
def _listed(repository: str) -> list[str]:
    """Return the files of a repository that are here.

    Raises FileNotFoundError (as huggingface_hub's own kind of it) where there are none.
    """
    from huggingface_hub.constants import HF_HUB_CACHE
    from huggingface_hub.errors import LocalEntryNotFoundError

    cached = Path(HF_HUB_CACHE) / f"models--{repository.replace('/', '--')}" / "snapshots"
    folders = [FOLDERS.known(repository), *(cached.glob("*") if cached.is_dir() else ())]
    found: dict[str, None] = {}
    for folder in folders:
        if folder is None:
            continue
        for path in Path(folder).rglob("*"):
            if path.is_file() and len(found) < _MOST_FILES:
                found[path.relative_to(folder).as_posix()] = None
    if not found:
        raise LocalEntryNotFoundError(_unknown(repository))
    return list(found)


def _list(_original: Callable[..., Any], asked: inspect.BoundArguments) -> list[str]:
    return _listed(str(asked.arguments["repo_id"]))


def _info(_original: Callable[..., Any], asked: inspect.BoundArguments) -> Any:
    from huggingface_hub import hf_api

    made: Any = hf_api.ModelInfo  # it has no types
    repository = str(asked.arguments["repo_id"])
    files = _listed(repository)
    return made(
        id=repository,
        private=False,
        downloads=0,
        likes=0,
        tags=[],
        sha=_commit(repository),
        pipeline_tag=_task(repository),
        library_name="diffusers" if "model_index.json" in files else "transformers",
        siblings=[{"rfilename": name} for name in files],
    )


def _commit(repository: str) -> str:
    """Return the commit that the hub's cache has of a repository, else none of any."""
    from huggingface_hub.constants import HF_HUB_CACHE

    named = Path(HF_HUB_CACHE) / f"models--{repository.replace('/', '--')}" / "refs" / "main"
    try:
        told = named.read_text()[:64].strip()
    except OSError:
        return _NO_COMMIT
    return told or _NO_COMMIT


def _task(repository: str) -> str | None:
    """Return what a model is for, by its config; None where that does not tell."""
    folder = FOLDERS.known(repository)
    if folder is None:
        return None
    try:
        config = json.loads((Path(folder) / "config.json").read_text())
        (name, *_) = config["architectures"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    if isinstance(config.get("vision_config"), dict):
        return "image-text-to-text"
    return next((task for end, task in _TASKS if str(name).endswith(end)), None)


def _has(_original: Callable[..., Any], asked: inspect.BoundArguments) -> bool:
    try:
        return asked.arguments.get("filename") in (None, *_listed(str(asked.arguments["repo_id"])))
    except OSError:
        return False


_ANSWERS = {
    "model_info": _info,
    "repo_info": _info,
    "list_repo_files": _list,
    "file_exists": _has,
    "repo_exists": _has,
}
