"""Models as diffusers and transformers save them: a folder of configs and safetensors, or one file.

Nothing is imported and nothing is run: a class is a name, and weights are what headers say of them.
A folder may come from a stranger: what is listed, read and followed is bounded, and nothing outside
of it is opened but what a link in it leads to (the hub's own cache is made of links).
Sources: diffusers, src/diffusers/pipelines/pipeline_utils.py (model_index.json) and
utils/constants.py; transformers, src/transformers/utils/__init__.py (names of weights).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Protocol

from vramplan.codec import Json, JsonError, Limits, read_object
from vramplan.errors import SourceError
from vramplan.quick_dataclass import dataclass, field
from vramplan.sources.other_formats import PICKLE_HINT
from vramplan.sources.safetensors import SafetensorsHeader, Tensor, read_safetensors

INDEX, CONFIG = "model_index.json", "config.json"
SCHEDULER = "scheduler_config.json"
_LIMITS = Limits(text_bytes=1 << 20, parsed_bytes=32 << 20)
_MOST_FILES = 10_000
_MOST_PARTS = 32
_MOST_SHARDS = 1_000
_CLASS = re.compile(r"[A-Za-z_]\w{0,99}", re.ASCII)
#: model.safetensors, diffusion_pytorch_model.fp16-00001-of-00002.safetensors, and the older
#: model-00001-of-00002.fp16.safetensors
_WEIGHTS = re.compile(
    r"(?:diffusion_pytorch_model|model)(?P<early>\.\w{1,20})?"
    r"(?:-(?P<part>[0-9]{5})-of-(?P<parts>[0-9]{5}))?(?P<late>\.\w{1,20})?\.safetensors",
    re.ASCII,
)
_PICKLE = re.compile(r".*\.(?:bin|ckpt|pt|pth|pkl)", re.IGNORECASE)


class Files(Protocol):
    """The files of a model, in a folder here or elsewhere; paths are relative, with slashes."""

    @property
    def place(self) -> str:
        """Return what messages call it."""

    def names(self, folder: str = "") -> list[str]:
        """Return the names of the files that lie in a folder itself."""

    def read_config(self, path: str) -> dict[str, Json]:
        """Return an object of JSON; raises SourceError."""

    def read_weights(self, path: str) -> SafetensorsHeader:
        """Return a header; raises SourceError."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """A part of a model that has weights: its class by name, its config, its tensors."""

    name: str
    class_path: str  # diffusers.X, transformers.X; of a single file what it is by its tensors
    config: Mapping[str, Json]
    tensors: tuple[Tensor, ...]
    dtype: str | None = None  # what it is loaded in, where that is not what is asked for

    @property
    def size_bytes(self) -> int:
        """What its tensors take in their files."""
        return sum(tensor.size_bytes for tensor in self.tensors)


@dataclass(frozen=True, slots=True, kw_only=True)
class SavedModel:
    """A model as it was saved. `kind`: pipeline | model | checkpoint (a file of several parts)."""

    place: str
    kind: str
    class_name: str
    runtime: str  # diffusers | transformers
    parts: tuple[Part, ...]
    config: Mapping[str, Json]
    schedulers: Mapping[str, Mapping[str, Json]] = field(default_factory=dict)  # their configs


@dataclass(frozen=True, slots=True)
class LocalFiles:
    """The files of a folder on this machine."""

    folder: Path

    @property
    def place(self) -> str:
        """What messages call it."""
        return str(self.folder)

    def names(self, folder: str = "") -> list[str]:
        """Return the names of the files in a folder; none where it is not there."""
        found = []
        try:
            for number, path in enumerate((self.folder / folder).iterdir()):
                if number >= _MOST_FILES:
                    break
                if path.is_file():
                    found.append(path.name)
        except (FileNotFoundError, NotADirectoryError):
            return []
        except OSError as problem:
            reason = problem.strerror or problem
            raise SourceError(f"{self.folder / folder}: cannot be read: {reason}") from None
        return sorted(found)

    def read_config(self, path: str) -> dict[str, Json]:
        """Return an object of JSON; raises SourceError."""
        try:
            return read_object(self.folder / path, _LIMITS)
        except JsonError as problem:
            raise SourceError(str(problem)) from None

    def read_weights(self, path: str) -> SafetensorsHeader:
        """Return a header; raises SourceError."""
        return read_safetensors(self.folder / path)


def is_saved_folder(folder: Path) -> bool:
    """Return whether a folder is one that diffusers or transformers saved, and not one of GGUFs."""
    if not ((folder / INDEX).is_file() or (folder / CONFIG).is_file()):
        return False
    return not any(folder.glob("*.gguf"))


def is_part_of_folder(path: Path) -> bool:
    """Return whether a file is the weights of the folder it is in, beside the config of those."""
    return _WEIGHTS.fullmatch(path.name) is not None and (path.parent / CONFIG).is_file()


def read_saved_folder(files: Files) -> SavedModel:
    """Return the model in a folder; raises SourceError where it is none, or not usable."""
    there = files.names()
    if INDEX in there:
        return _read_pipeline(files)
    if CONFIG not in there:
        hint = f"a model has a {CONFIG} or a {INDEX}"
        raise SourceError(f"{files.place}: no model in it", hint=hint)
    return _read_model(files, there)


def _read_pipeline(files: Files) -> SavedModel:
    index = files.read_config(INDEX)
    parts = tuple(_read_parts(files, index))
    if not parts:
        raise SourceError(f"{files.place}: {INDEX} names no component that has weights")
    return SavedModel(
        place=files.place,
        kind="pipeline",
        class_name=_class_name(index.get("_class_name"), f"{files.place}/{INDEX}"),
        runtime="diffusers",
        parts=parts,
        config=index,
        schedulers=dict(_read_schedulers(files, index)),
    )


def _read_schedulers(
    files: Files, index: Mapping[str, Json]
) -> Iterator[tuple[str, Mapping[str, Json]]]:
    """Yield the configs of a pipeline's schedulers, where they are there."""
    for name, said in index.items():
        is_one = isinstance(said, list) and len(said) == 2 and str(said[1]).endswith("Scheduler")
        if is_one and _CLASS.fullmatch(name) and SCHEDULER in files.names(name):
            yield name, files.read_config(f"{name}/{SCHEDULER}")


def _read_parts(files: Files, index: Mapping[str, Json]) -> Iterator[Part]:
    """Yield the components with weights; schedulers, tokenizers and processors have none."""
    named = [
        (name, said)
        for name, said in index.items()
        if isinstance(said, list) and len(said) == 2 and all(isinstance(one, str) for one in said)
    ]
    if len(named) > _MOST_PARTS:
        raise SourceError(f"{files.place}/{INDEX}: {len(named)} components; at most {_MOST_PARTS}")
    for name, said in named:
        library, class_name = (str(one) for one in said)
        if not _CLASS.fullmatch(name):
            raise SourceError(f"{files.place}/{INDEX}: {name[:80]!r} is not a component's name")
        there = files.names(name)
        if CONFIG not in there:
            continue
        tensors = _read_tensors(files, there, f"{name}/")
        if tensors is None:
            raise SourceError(
                f"{files.place}/{name}: {class_name[:80]} without weights",
                hint="download or save them too: model.safetensors, or its parts",
            )
        yield Part(
            name=name,
            class_path=f"{library[:80]}.{_class_name(class_name, f'{files.place}/{INDEX}')}",
            config=files.read_config(f"{name}/{CONFIG}"),
            tensors=tensors,
        )


def _read_model(files: Files, there: Sequence[str]) -> SavedModel:
    """Return a lone model: of transformers, or a component that diffusers saved."""
    config = files.read_config(CONFIG)
    where = f"{files.place}/{CONFIG}"
    if "auto_map" in config:
        hint = "only classes of diffusers and transformers themselves are read"
        raise SourceError(f"{where}: needs code of its own (auto_map), which is not run", hint=hint)
    is_of_diffusers = "_diffusers_version" in config or "_class_name" in config
    listed = config.get("architectures")
    first = listed[0] if isinstance(listed, list) and listed else None
    class_name = _class_name(config.get("_class_name") if is_of_diffusers else first, where)
    tensors = _read_tensors(files, there, "")
    if tensors is None:
        hint = "download or save them too: model.safetensors, or its parts"
        raise SourceError(f"{files.place}: {class_name} without weights", hint=hint)
    runtime = "diffusers" if is_of_diffusers else "transformers"
    part = Part(name="model", class_path=f"{runtime}.{class_name}", config=config, tensors=tensors)
    return SavedModel(
        place=files.place,
        kind="model",
        class_name=class_name,
        runtime=runtime,
        parts=(part,),
        config=config,
    )


def _class_name(said: Json, where: str) -> str:
    if not isinstance(said, str) or not _CLASS.fullmatch(said):
        raise SourceError(f"{where}: names no class: {str(said)[:80]!r}")
    return said


def _read_tensors(files: Files, there: Iterable[str], folder: str) -> tuple[Tensor, ...] | None:
    """Return a component's tensors, from its default files or of their one variant.

    None where it has no weights. Raises SourceError for pickles, and where a part is missing.
    """
    variants: dict[str, dict[str, str]] = {}
    counts: dict[str, set[int]] = {}
    for name in there:
        match = _WEIGHTS.fullmatch(name)
        if match is None:
            continue
        variant = (match["early"] or match["late"] or "").lstrip(".")
        variants.setdefault(variant, {})[match["part"] or ""] = name
        counts.setdefault(variant, set()).add(int(match["parts"] or 1))
    if not variants:
        pickles = [name for name in there if _PICKLE.fullmatch(name)]
        if pickles:
            shown = f"{files.place}/{folder}{pickles[0]}"
            raise SourceError(f"{shown}: not read", hint=PICKLE_HINT)
        return None
    variant = "" if "" in variants else min(variants)
    chosen = variants[variant]
    if "" in chosen:  # whole, beside its own parts or alone
        chosen = {"": chosen[""]}
    else:
        (parts, *others) = counts[variant]
        if others or parts > _MOST_SHARDS or len(chosen) != parts:
            raise SourceError(
                f"{files.place}/{folder}: {len(chosen)} of {parts} parts of its weights are there"
            )
    headers = [files.read_weights(f"{folder}{name}") for _, name in sorted(chosen.items())]
    by_name = {tensor.name: tensor for header in headers for tensor in header.tensors}
    return tuple(by_name.values())


# ------------------------------------------------------------------------- one file of many parts
#: where Stability AI's own layout (LDM, and its SDXL) keeps each component; the copy that training
#: averages (EMA) and the schedule's tables are not loaded
_CHECKPOINT: Mapping[str, str] = {
    "model.diffusion_model.": "unet",
    "first_stage_model.": "vae",
    "cond_stage_model.transformer.": "text_encoder",
    "conditioner.embedders.0.transformer.": "text_encoder",
    "conditioner.embedders.1.model.": "text_encoder_2",
}
#: OpenCLIP's fused projections, and what only training reads
_FUSED = ("attn.in_proj_weight", "attn.in_proj_bias")
_TRAINING_ONLY = ("logit_scale",)
_LORA = re.compile(r".*[._](?:lora_(?:A|B|up|down)|alpha)\b.*", re.ASCII)


def read_saved_file(path: Path) -> SavedModel:
    """Return the model in a single safetensors file, its parts by the names of its tensors.

    Raises SourceError for a LoRA, which is no model by itself.
    """
    header = read_safetensors(path)
    if not header.tensors:
        raise SourceError(f"{path}: no tensors in it")
    if sum(_LORA.fullmatch(one.name) is not None for one in header.tensors) * 2 > len(
        header.tensors
    ):
        hint = f"name the model it is for, and this file with --set lora={path}"
        raise SourceError(f"{path}: a LoRA, no model by itself", hint=hint)
    found: dict[str, list[Tensor]] = {}
    for tensor in header.tensors:
        prefix = next((one for one in _CHECKPOINT if tensor.name.startswith(one)), None)
        if prefix is not None:
            rest = tensor.name.removeprefix(prefix)
            found.setdefault(_CHECKPOINT[prefix], []).extend(_split_fused(rest, tensor))
    if not found:
        part = Part(name="model", class_path="", config={}, tensors=header.tensors)
        return _single(path, "model", (part,))
    parts = (
        Part(name=name, class_path="", config={}, tensors=tuple(tensors))
        for name, tensors in found.items()
    )
    return _single(path, "checkpoint", tuple(parts))


def _single(path: Path, kind: str, parts: tuple[Part, ...]) -> SavedModel:
    return SavedModel(
        place=str(path), kind=kind, class_name="", runtime="diffusers", parts=parts, config={}
    )


def _split_fused(name: str, tensor: Tensor) -> Iterator[Tensor]:
    """Yield a tensor as the libraries hold it: queries, keys and values apart."""
    if name in _TRAINING_ONLY:
        return
    if name.endswith(_FUSED) and tensor.shape and tensor.shape[0] % 3 == 0:
        third = (tensor.shape[0] // 3, *tensor.shape[1:])
        for which in "qkv":
            yield Tensor(
                name=f"{name}.{which}",
                dtype=tensor.dtype,
                shape=third,
                size_bytes=tensor.size_bytes // 3,
            )
        return
    yield Tensor(name=name, dtype=tensor.dtype, shape=tensor.shape, size_bytes=tensor.size_bytes)
