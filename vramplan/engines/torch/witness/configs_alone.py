"""Meets `from_pretrained` of diffusers and transformers with configs alone: ``--weights none``.

A name of the hub becomes a folder of configs: from the hub's cache, else from vramplan's catalogue.
A model's files become hollow ones (`hollow_weights`). All else is the libraries' own code.
"""

from __future__ import annotations

import functools
import json
import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from tempfile import mkdtemp
from types import ModuleType
from typing import Any

from vramplan.engines.torch.witness import program_record
from vramplan.engines.torch.witness.card_state import CONFIGS_FILE, state_path

#: what loads something by a name or a folder, and takes that first
_METHODS = ("from_pretrained", "load_config", "get_config_dict")
#: the classes that load weights themselves; all other models' go through theirs
_MODELS = ("PreTrainedModel", "ModelMixin")
_TOKENIZERS = ("PreTrainedTokenizerBase",)
#: about the files of weights, which are ours; and where they are, which is said otherwise
_ABOUT_FILES = ("use_safetensors", "subfolder", "revision", "weights_name",
                "force_download", "from_tf", "from_flax")  # fmt: skip
_REPOSITORY = re.compile(r"[\w.-]{1,96}(/[\w.-]{1,96})?")
_MOST_REMARKS = 16


def wants(module: str) -> bool:
    """True for a module whose classes may load something."""
    return module.startswith(("diffusers.", "transformers."))


def meet(module: ModuleType) -> None:
    """Have the classes of a module load what we have for a name."""
    for kind in list(vars(module).values()):
        if not isinstance(kind, type) or kind.__module__ != module.__name__:
            continue
        for name in _METHODS:
            method = vars(kind).get(name)
            if isinstance(method, classmethod):
                setattr(kind, name, _met(method.__func__, kind.__name__))


def _met(original: Callable[..., Any], kind: str) -> Any:
    """Return a classmethod that finds a folder for the name that it is given, and goes on."""

    @functools.wraps(original)
    def load(cls: type, *words: Any, **given: Any) -> Any:
        key = next((one for one in _FIRST if one in given), None)
        asked = words[0] if words else given.pop(key, None) if key else None
        rest = words[1:]
        if not isinstance(asked, str | os.PathLike):
            return original(cls, asked, *rest, **given)
        folder = _FOLDERS.place(os.fspath(asked))
        given.pop("variant", None)  # of files that are not there
        if kind in _MODELS and original.__name__ == "from_pretrained":
            folder, given = _FOLDERS.hollow(cls, folder, given, of_diffusers=kind == "ModelMixin")
        return original(cls, folder, *rest, **given)

    return classmethod(load)


_FIRST = ("pretrained_model_name_or_path", "pretrained_model_or_path", "pretrained_model_name")


class _Folders:
    """The folders of configs that stand for names, and hollow ones for models."""

    def __init__(self) -> None:
        self._known: dict[str, Any] | None = None
        self._of_name: dict[str, str] = {}
        self._hollow: dict[tuple[str, ...], str] = {}

    # --------------------------------------------------------------------------------- by name
    def place(self, name: str) -> str:
        """Return the folder that a name stands for; a path as it is.

        Raises OSError for a name that nobody here knows: nothing is fetched.
        """
        if os.path.exists(name) or not _REPOSITORY.fullmatch(name):  # noqa: PTH110  # as libraries do
            return name
        if name not in self._of_name:
            self._of_name[name] = self._found(name)
        return self._of_name[name]

    def _found(self, name: str) -> str:
        cached = _cached(name)
        if cached is not None:
            return str(cached)
        if self._known is None:
            path = _run_folder() / CONFIGS_FILE
            self._known = json.loads(path.read_text()) if path.is_file() else {}
        entry = self._known.get(name.lower())
        if entry is None:
            message = (
                f"--weights none: {name} is neither in vramplan's catalogue nor in the hub's "
                "cache, and nothing is downloaded; a folder with its configs does"
            )
            remark(message)
            raise OSError(message)
        remark(f"{name}: configs of the catalogue's {entry['name']}, no weights")
        from vramplan.engines.torch.witness.catalogue_folder import write_folder

        folder = Path(mkdtemp(prefix="configs-", dir=_run_folder()))
        write_folder(folder, entry, remark)
        return str(folder)

    # ------------------------------------------------------------------------------ by a model
    def hollow(
        self, cls: Any, place: str, given: Mapping[str, Any], *, of_diffusers: bool
    ) -> tuple[str, dict[str, Any]]:
        """Return a folder with a model's configs and hollow weights, and the arguments left."""
        from vramplan.engines.torch.witness import hollow_weights

        source = Path(place) / (given.get("subfolder") or "")
        left = {key: value for key, value in given.items() if key not in _ABOUT_FILES}
        if not (source / "config.json").is_file():
            return place, dict(given)  # the library says what it misses
        config, dtype = _config(cls, source, left, of_diffusers=of_diffusers)
        key = (str(source), f"{cls.__module__}.{cls.__qualname__}", str(dtype), _text(config))
        if key not in self._hollow:
            folder = Path(mkdtemp(prefix="hollow-", dir=_run_folder()))
            for path in source.glob("*.json"):
                if not path.name.endswith(".index.json"):  # it names files that are not there
                    (folder / path.name).symlink_to(path.resolve())
            tensors = hollow_weights.tensors_of(cls, config)
            name = "diffusion_pytorch_model" if of_diffusers else "model"
            hollow_weights.write_hollow(folder / f"{name}.safetensors", tensors, dtype)
            self._hollow[key] = str(folder)
        return self._hollow[key], left


_FOLDERS = _Folders()


def remark(text: str) -> None:
    """Take down what is to be known of a run's configs."""
    if text not in program_record.REMARKS and len(program_record.REMARKS) < _MOST_REMARKS:
        program_record.REMARKS.append(text)


def _run_folder() -> Path:
    state = state_path()
    assert state is not None
    return state.parent


def _cached(name: str) -> Path | None:
    """Return the newest copy of a repository's configs in the hub's cache."""
    from huggingface_hub.constants import HF_HUB_CACHE

    place = Path(HF_HUB_CACHE) / f"models--{name.replace('/', '--')}"
    try:
        commit = (place / "refs" / "main").read_text()[:64].strip()
    except OSError:
        return None
    folder = place / "snapshots" / commit
    has_any = any((folder / one).is_file() for one in ("config.json", "model_index.json"))
    return folder if re.fullmatch(r"\w+", commit) and has_any else None


def _config(
    cls: Any, source: Path, given: dict[str, Any], *, of_diffusers: bool
) -> tuple[Any, Any]:
    """Return the config that a class is made of, and the type that its weights are asked for in.

    What a file would hold where nobody asks for a type: what the config says, else fp32.
    """
    import torch

    asked = given.get("dtype", given.get("torch_dtype"))
    if isinstance(asked, str) and asked != "auto":
        asked = getattr(torch, asked, None)
    asked = asked if isinstance(asked, torch.dtype) else None
    if of_diffusers:
        config = json.loads((source / "config.json").read_text())
        changed = {key: given[key] for key in config if key in given}
        return config | changed, asked or torch.float32
    config = given.get("config")
    if not hasattr(config, "to_dict"):
        config, _ = cls.config_class.from_pretrained(
            source, return_unused_kwargs=True, **{k: v for k, v in given.items() if k != "config"}
        )
    said = getattr(config, "dtype", None) or getattr(config, "torch_dtype", None)
    if isinstance(said, str):
        said = getattr(torch, said.removeprefix("torch."), None)
    return config, asked or (said if isinstance(said, torch.dtype) else torch.float32)


def _text(config: Any) -> str:
    if not isinstance(config, dict):
        config = config.to_dict()
    return json.dumps(config, sort_keys=True, default=str)
