"""A folder as a repository on the hub has it, of what the catalogue says: configs, no weights.

In a program's own process, with its own diffusers and transformers: what a class takes that the
catalogue does not describe (tokenizers, processors) is asked from its signature.
"""

from __future__ import annotations

import importlib
import inspect
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from vramplan.engines.torch.witness import stand_in_processors, stand_in_tokenizers

#: no other library's classes are imported, whatever a catalogue says
_ALLOWED = ("diffusers", "transformers")
#: classes that their library does not export at its top
_ELSEWHERE = {
    "diffusers.StableDiffusionSafetyChecker": "diffusers.pipelines.stable_diffusion.safety_checker",
}
#: element types as configs of transformers name them
_DTYPES = {"fp16": "float16", "bf16": "bfloat16", "fp32": "float32"}


def write_folder(folder: Path, entry: Mapping[str, Any], remark: Callable[[str], None]) -> None:
    """Write an entry's folder: a pipeline's, with a folder for each part, or a model's."""
    components = entry["components"]
    path = entry["class"]
    if path is None or not path.endswith("Pipeline"):
        config = _write_component(folder, components[0])
        if entry["runtime"] == "transformers":
            config |= {"dtype": _DTYPES.get(entry["dtype"], "float32")}
            _write(folder / "config.json", config)
            _write_beside(folder, config, remark)
        return
    index: dict[str, Any] = {"_class_name": path.rpartition(".")[2]}
    configs = {}
    for one in components:
        configs[one["name"]] = _write_component(folder / one["name"], one)
        index[one["name"]] = _library_and_name(one["class"])
    if entry["scheduler"] is not None:
        _write_scheduler(folder / "scheduler", entry["scheduler"])
        index["scheduler"] = _library_and_name(entry["scheduler"]["class"])
    # what is a class is made below, as the signature has it
    index |= {
        name: [None, None] if told is None else told
        for name, told in entry["parts"].items()
        if not isinstance(told, str)
    }
    _write_rest(folder, entry, configs, index, remark)
    _write(folder / "model_index.json", index)


def _write_component(folder: Path, one: Mapping[str, Any]) -> dict[str, Any]:
    """Write a component's config, and return it."""
    folder.mkdir(parents=True, exist_ok=True)
    cls = find_class(one["class"])
    kind = getattr(cls, "config_class", None)
    if kind is None:
        config = {"_class_name": cls.__name__, **one["config"]}
    else:
        config = kind(**one["config"]).to_dict() | {"architectures": [cls.__name__]}
        config.pop("dtype", None)
        config.pop("torch_dtype", None)
    _write(folder / "config.json", config)
    return config


def _write_scheduler(folder: Path, one: Mapping[str, Any]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    name = find_class(one["class"]).__name__
    _write(folder / "scheduler_config.json", {"_class_name": name, **one["config"]})


def _write_rest(
    folder: Path,
    entry: Mapping[str, Any],
    configs: Mapping[str, Any],
    index: dict[str, Any],
    remark: Callable[[str], None],
) -> None:
    """Write the tokenizers and processors that a pipeline's class takes."""
    taken = inspect.signature(find_class(entry["class"]).__init__).parameters
    optional = getattr(find_class(entry["class"]), "_optional_components", ())
    for name, parameter in taken.items():
        if name in index or name == "self":
            continue
        said = entry["parts"].get(name) or _annotated(parameter)
        if "tokenizer" in name:
            encoder = configs.get(name.replace("tokenizer", "text_encoder"), {})
            class_name = said.rpartition(".")[2] or "PreTrainedTokenizerFast"
            config = encoder.get("text_config") or encoder
            stand_in_tokenizers.write_tokenizer(folder / name, class_name, config)
            index[name] = ["transformers", _tokenizer_class(class_name)]
            remark(f"{entry['name']}: a stand-in for its tokenizer")
        elif name == "feature_extractor" and "CLIPImageProcessor" in said:
            from transformers import CLIPImageProcessor

            CLIPImageProcessor().save_pretrained(folder / name)
            index[name] = ["transformers", "CLIPImageProcessor"]
        elif name in optional:
            index[name] = [None, None]


def _tokenizer_class(name: str) -> str:
    return name if name.startswith(("CLIP", "T5")) else "PreTrainedTokenizerFast"


def _annotated(parameter: inspect.Parameter) -> str:
    said = parameter.annotation
    return said if isinstance(said, str) else getattr(said, "__name__", str(said))


def _write_beside(folder: Path, config: Mapping[str, Any], remark: Callable[[str], None]) -> None:
    """Write a model's tokenizer and processor into its own folder."""
    text = stand_in_tokenizers.text_config(config)
    if text is not None:
        stand_in_tokenizers.write_tokenizer(folder, "", text)
        remark("a stand-in for a tokenizer: a token for about four characters")
    stand_in_processors.write_processor(folder, config)


def find_class(path: str) -> Any:
    """Return a class of diffusers or transformers; raises OSError for another."""
    module, _, name = path.rpartition(".")
    if module.partition(".")[0] not in _ALLOWED or name.startswith("_"):
        raise OSError(f"{path} is no class of diffusers or transformers")
    try:
        found = getattr(importlib.import_module(_ELSEWHERE.get(path, module)), name)
    except (ImportError, AttributeError) as problem:
        raise OSError(f"{path} is not in what is installed: {problem}") from None
    return found


def _library_and_name(path: str) -> list[str]:
    module, _, name = path.rpartition(".")
    if path in _ELSEWHERE:
        return [_ELSEWHERE[path].split(".")[-2], name]  # as diffusers names a pipeline's own folder
    return [module.partition(".")[0], name]


def _write(path: Path, told: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(told, indent=1, default=str))
