"""Folders of configs that stand for names of the hub, without weights: ``--weights none``.

From the hub's cache, else from vramplan's catalogue. A model's files become hollow ones
(`hollow_weights`); a tokenizer that is not there gets a stand-in.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

from vramplan.engines.torch.witness import program_record
from vramplan.engines.torch.witness.card_state import CONFIGS_FILE, state_path

#: about the files of weights, which are ours; and where they are, which is said otherwise
_ABOUT_FILES = ("use_safetensors", "subfolder", "revision", "weights_name",
                "force_download", "from_tf", "from_flax")  # fmt: skip
#: what is asked of a model and would change what its config says of itself
_NOT_OF_CONFIG = ("config", "dtype", "torch_dtype")
#: what a folder has where its tokenizer can be loaded
_OF_TOKENIZERS = (
    "tokenizer.json", "vocab.json", "vocab.txt", "merges.txt", "tokenizer.model", "spiece.model",
    "sentencepiece.bpe.model", "tekken.json",
)  # fmt: skip
_REPOSITORY = re.compile(r"[\w.-]{1,96}(/[\w.-]{1,96})?")
_MOST_REMARKS = 16


class _Folders:
    """The folders that stand for names, hollow ones for models, and stand-ins for tokenizers."""

    def __init__(self) -> None:
        self._known: dict[str, Any] | None = None
        self._of_name: dict[str, str | None] = {}
        self._hollow: dict[tuple[str, ...], str] = {}
        self._tokenizers: dict[tuple[str, str], str] = {}

    # --------------------------------------------------------------------------------- by name
    def place(self, name: str) -> str:
        """Return the folder that a name stands for; a path as it is.

        Raises OSError for a name that nobody here knows: nothing is fetched.
        """
        if not is_repository(name):
            return name
        found = self.known(name)
        if found is None:
            message = (
                f"--weights none: {name} is neither in vramplan's catalogue nor in the hub's "
                "cache, and nothing is downloaded; a folder with its configs does"
            )
            remark(message)
            raise OSError(message)
        return found

    def known(self, name: str) -> str | None:
        """Return the folder that a repository's name stands for; None where nobody knows it."""
        if name not in self._of_name:
            self._of_name[name] = self._found(name)
        return self._of_name[name]

    def _found(self, name: str) -> str | None:
        cached = _cached(name)
        if cached is not None:
            return str(cached)
        if self._known is None:
            path = run_folder() / CONFIGS_FILE
            self._known = json.loads(path.read_text()) if path.is_file() else {}
        entry = self._known.get(name.lower())
        if entry is None:
            return None
        remark(f"{name}: configs of the catalogue's {entry['name']}, no weights")
        from vramplan.engines.torch.witness.catalogue_folder import write_folder

        folder = Path(mkdtemp(prefix="configs-", dir=run_folder()))
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
            folder = Path(mkdtemp(prefix="hollow-", dir=run_folder()))
            for path in source.glob("*.json"):
                if not path.name.endswith(".index.json"):  # it names files that are not there
                    (folder / path.name).symlink_to(path.resolve())
            tensors = hollow_weights.tensors_of(cls, config)
            name = "diffusion_pytorch_model" if of_diffusers else "model"
            hollow_weights.write_hollow(folder, name, tensors, dtype)
            self._hollow[key] = str(folder)
        return self._hollow[key], left

    # -------------------------------------------------------------------------- by a tokenizer
    def tokenizer(self, place: str, subfolder: str, class_name: str) -> str | None:
        """Return a folder with a stand-in for a tokenizer that a folder of configs does not have.

        None where it has one, or where no config says of how many words it would know.
        """
        folder = Path(place) / subfolder
        if any((folder / name).exists() for name in _OF_TOKENIZERS):
            return None
        key = (str(folder), class_name)
        if key not in self._tokenizers:
            config = _text_config(Path(place), subfolder)
            if config is None:
                return None
            from vramplan.engines.torch.witness import stand_in_tokenizers

            made = Path(mkdtemp(prefix="tokenizer-", dir=run_folder()))
            stand_in_tokenizers.write_tokenizer(made, class_name, config)
            remark(f"{_called(folder)}: a stand-in for its tokenizer, whose files are not there")
            self._tokenizers[key] = str(made)
        return self._tokenizers[key]


FOLDERS = _Folders()


def is_repository(name: str) -> bool:
    """True for what can only be a repository's name: no path that is there."""
    return not os.path.exists(name) and _REPOSITORY.fullmatch(name) is not None  # noqa: PTH110  # as libraries do


def remark(text: str) -> None:
    """Take down what is to be known of a run's configs."""
    if text not in program_record.REMARKS and len(program_record.REMARKS) < _MOST_REMARKS:
        program_record.REMARKS.append(text)


def run_folder() -> Path:
    """Return the run's own folder, which goes when the run ends."""
    state = state_path()
    assert state is not None
    return state.parent


def is_ours(place: str) -> bool:
    """True for a folder that was written here."""
    return place.startswith(f"{run_folder()}{os.sep}")


def _called(folder: Path) -> str:
    return folder.name if is_ours(str(folder)) else str(folder)


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


def _text_config(place: Path, subfolder: str) -> dict[str, Any] | None:
    """Return the config of the model that a tokenizer is for: beside it, or in its encoder's."""
    folders = [place / subfolder]
    if "tokenizer" in subfolder:
        folders.append(place / subfolder.replace("tokenizer", "text_encoder"))
    elif not subfolder and "tokenizer" in place.name:
        folders.append(place.parent / place.name.replace("tokenizer", "text_encoder"))
    for folder in folders:
        try:
            config = json.loads((folder / "config.json").read_text())
        except (OSError, ValueError):
            continue
        if isinstance(config, dict):
            from vramplan.engines.torch.witness.stand_in_tokenizers import text_config

            return text_config(config)
    return None


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
            source,
            return_unused_kwargs=True,
            **{key: value for key, value in given.items() if key not in _NOT_OF_CONFIG},
        )
    said = getattr(config, "dtype", None) or getattr(config, "torch_dtype", None)
    if isinstance(said, str):
        said = getattr(torch, said.removeprefix("torch."), None)
    return config, asked or (said if isinstance(said, torch.dtype) else torch.float32)


def _text(config: Any) -> str:
    if not isinstance(config, dict):
        config = config.to_dict()
    return json.dumps(config, sort_keys=True, default=str)
