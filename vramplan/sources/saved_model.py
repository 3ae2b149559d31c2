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
from vramplan.sources.other_formats import PICKLE_HINT, tell_folder
from vramplan.sources.safetensors import SafetensorsHeader, Tensor, read_safetensors

INDEX, CONFIG = "model_index.json", "config.json"
SCHEDULER = "scheduler_config.json"
_LIMITS = Limits(text_bytes=1 << 20, parsed_bytes=32 << 20)
#: a mixture of experts has a line for each of a hundred thousand tensors
INDEX_LIMITS = Limits(text_bytes=32 << 20, parsed_bytes=256 << 20)
_MOST_FILES = 10_000
_MOST_PARTS = 32
_MOST_SHARDS = 1_000
_CLASS = re.compile(r"[A-Za-z_]\w{0,99}", re.ASCII)
#: which file each tensor is in: model.safetensors.index.json, and of a variant
#: diffusion_pytorch_model.safetensors.index.fp16.json
_PARTS = re.compile(
    r"(?:diffusion_pytorch_model|model)\.safetensors\.index(?:\.(?P<variant>\w{1,20}))?\.json",
    re.ASCII,
)
_PART = re.compile(r"[\w.-]{1,200}\.safetensors", re.ASCII)
#: model.safetensors, diffusion_pytorch_model.fp16-00001-of-00002.safetensors, and the older
#: model-00001-of-00002.fp16.safetensors
_WEIGHTS = re.compile(
    r"(?:diffusion_pytorch_model|model)(?P<early>\.\w{1,20})?"
    r"(?:-(?P<part>[0-9]{1,6})-of-(?P<parts>[0-9]{1,6}))?(?P<late>\.\w{1,20})?\.safetensors",
    re.ASCII,
)
#: classes with weights: schedulers, tokenizers and processors have none, and are not looked for;
#: a safety checker is often left out
_WITH_WEIGHTS = (
    *("Model", "ModelWithProjection", "ForConditionalGeneration", "ForCausalLM", "Encoder"),
    *("Vocoder", "Connectors", "Adapter"),
)
_AUTOENCODER = "Autoencoder"
#: beside it other libraries' weights are copies
_PICKLE_OF_TORCH = re.compile(r"(?:diffusion_)?pytorch_model.*\.bin", re.ASCII)
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

    def read_index(self, path: str) -> dict[str, Json]:
        """Return an object of JSON that may name each tensor; raises SourceError."""

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
        return self._read_object(path, _LIMITS)

    def read_index(self, path: str) -> dict[str, Json]:
        """Return an object of JSON that may name each tensor; raises SourceError."""
        return self._read_object(path, INDEX_LIMITS)

    def _read_object(self, path: str, limits: Limits) -> dict[str, Json]:
        try:
            return read_object(self.folder / path, limits)
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
            if class_name.endswith(_WITH_WEIGHTS) or class_name.startswith(_AUTOENCODER):
                raise SourceError(
                    f"{files.place}/{name}: not there, and {INDEX} names it: {class_name[:80]}",
                    hint=f"download or save it too; null in {INDEX} for a pipeline without it",
                )
            continue
        config = files.read_config(f"{name}/{CONFIG}")
        tensors = _read_tensors(files, there, f"{name}/", config)
        if tensors is None:
            raise _without_weights(f"{files.place}/{name}", class_name[:80], there)
        yield Part(
            name=name,
            class_path=f"{library[:80]}.{_class_name(class_name, f'{files.place}/{INDEX}')}",
            config=config,
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
    tensors = _read_tensors(files, there, "", config)
    if tensors is None:
        raise _without_weights(files.place, class_name, there)
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


def _without_weights(place: str, class_name: str, there: Iterable[str]) -> SourceError:
    """Return the error for a config whose weights are not there, or are another library's."""
    other = tell_folder(there)
    if other is not None:
        return SourceError(f"{place}: {other[0]}, by the names of its files", hint=other[1])
    hint = "download or save them too: model.safetensors, or its parts"
    return SourceError(f"{place}: {class_name} without weights", hint=hint)


def _class_name(said: Json, where: str) -> str:
    if not isinstance(said, str) or not _CLASS.fullmatch(said):
        raise SourceError(f"{where}: names no class: {str(said)[:80]!r}")
    return said


def _read_tensors(
    files: Files, there: Sequence[str], folder: str, config: Mapping[str, Json]
) -> tuple[Tensor, ...] | None:
    """Return a component's tensors, from its default files or of their one variant.

    None where it has no weights. What its class ties together is there once. Raises SourceError for
    pickles, and where a part is missing.
    """
    chosen = _choose_files(files, there, folder)
    if not chosen:
        pickles = [name for name in there if _PICKLE.fullmatch(name)]
        is_torchs = any(map(_PICKLE_OF_TORCH.fullmatch, there))
        if pickles and (is_torchs or tell_folder(there) is None):
            shown = f"{files.place}/{folder}{pickles[0]}"
            raise SourceError(f"{shown}: not read", hint=PICKLE_HINT)
        return None
    headers = [files.read_weights(f"{folder}{name}") for name in chosen]
    by_name = {tensor.name: tensor for header in headers for tensor in header.tensors}
    return without_tied(by_name.values(), config)


def _choose_files(files: Files, there: Sequence[str], folder: str) -> list[str]:
    """Return the files of a component's weights: one, those that its index names, or all parts.

    The default's go before a variant's, as they are loaded. Raises SourceError where some are
    missing.
    """
    variants: dict[str, dict[str, str]] = {}
    counts: dict[str, set[int]] = {}
    indices: dict[str, str] = {}
    for name in there:
        if (index := _PARTS.fullmatch(name)) is not None:
            indices[index["variant"] or ""] = name
        match = _WEIGHTS.fullmatch(name)
        if match is None:
            continue
        variant = (match["early"] or match["late"] or "").lstrip(".")
        variants.setdefault(variant, {})[match["part"] or ""] = name
        counts.setdefault(variant, set()).add(int(match["parts"] or 1))
    every = sorted({*variants, *indices})  # the default, which has no name, is the first
    if not every:
        return []
    variant = every[0]
    chosen = variants.get(variant, {})
    if "" in chosen:  # whole, beside its own parts or alone
        return [chosen[""]]
    if variant in indices:
        return _indexed(files, there, folder, indices[variant])
    (parts, *others) = counts[variant]
    if others or parts > _MOST_SHARDS or len(chosen) != parts:
        raise SourceError(
            f"{files.place}/{folder}: {len(chosen)} of {parts} parts of its weights are there"
        )
    return [name for _, name in sorted(chosen.items())]


def _indexed(files: Files, there: Iterable[str], folder: str, index: str) -> list[str]:
    """Return the files that an index puts tensors in; raises SourceError for one that misleads."""
    where = f"{files.place}/{folder}{index}"
    said = files.read_index(f"{folder}{index}").get("weight_map")
    if not isinstance(said, dict) or not said:
        raise SourceError(f"{where}: no weight_map in it")
    names = sorted({name if isinstance(name, str) else "" for name in said.values()})
    odd = next((name for name in names if not _PART.fullmatch(name)), None)
    if odd is not None:
        raise SourceError(f"{where}: {odd[:80]!r} is not a file of weights beside it")
    missing = sorted(set(names) - set(there))
    if missing or len(names) > _MOST_SHARDS:
        raise SourceError(
            f"{files.place}/{folder}: {len(names) - len(missing)} of {len(names)} parts of its "
            f"weights are there, by its {index}",
            hint=f"{missing[0]} is missing" if missing else f"at most {_MOST_SHARDS} are read",
        )
    return names


#: what is one tensor under several names: a list of words at either end of a language model, and
#: at the beginning of both halves of an encoder with a decoder. Some files have each
_SHARED = "shared.weight"
_OF_SHARED = ("encoder.embed_tokens.weight", "decoder.embed_tokens.weight")
_HEADS = ("lm_head.weight", "proj_out.weight", "embed_out.weight")
_WORDS = ("embed_tokens.weight", "wte.weight", "word_embeddings.weight", _SHARED)


def without_tied(tensors: Iterable[Tensor], config: Mapping[str, Json]) -> tuple[Tensor, ...]:
    """Return tensors without those that their class holds under another name too.

    Sources: transformers, models/{t5,umt5,bart}/modeling_*.py (`_tied_weights_keys`), and
    `tie_word_embeddings` of configs.
    """
    by_name = {one.name: one for one in tensors}
    shared = [name.removesuffix(_SHARED) for name in by_name if name.endswith(_SHARED)]
    tied = {f"{before}{name}": f"{before}{_SHARED}" for before in shared for name in _OF_SHARED}
    inner = config.get("text_config")
    told = config.get("tie_word_embeddings")
    if told is None and isinstance(inner, Mapping):
        told = inner.get("tie_word_embeddings")
    if told is True:
        words = [name for name in by_name if name.endswith(_WORDS)]
        tied |= {name: words[0] for name in by_name if name.endswith(_HEADS) and len(words) == 1}
    return tuple(
        one
        for one in by_name.values()
        if one.name not in tied or by_name[tied[one.name]].shape != one.shape
    )


# ------------------------------------------------------------------------- one file of many parts
#: where Stability AI's own layout (LDM, its SDXL, and SD3's), and what image programs put into one
#: file, keep each component; the copy that training averages (EMA) is not loaded
_VAE = "vae."
_CHECKPOINT: Mapping[str, str] = {
    "model.diffusion_model.": "unet",
    "first_stage_model.": "vae",
    _VAE: "vae",
    "cond_stage_model.transformer.": "text_encoder",
    "cond_stage_model.model.": "text_encoder",
    "conditioner.embedders.0.transformer.": "text_encoder",
    "conditioner.embedders.0.model.": "text_encoder_2",  # the refiner has but the second
    "conditioner.embedders.1.model.": "text_encoder_2",
}
_ENCODER = re.compile(r"text_encoders\.(?P<name>\w{1,40})\.(?:transformer\.|model\.)?", re.ASCII)
#: what programs call them there, as pipelines do
_ENCODERS = {"clip_l": "text_encoder", "clip_g": "text_encoder_2", "t5xxl": "text_encoder_3"}
_AVERAGED = "model_ema."
#: tensors beside the known ones: a schedule's tables are smaller, a vocoder is not
_OF_A_PART = 1 << 20
#: OpenCLIP's fused projections, and what only training reads
_FUSED = ("attn.in_proj_weight", "attn.in_proj_bias")
_TRAINING_ONLY = ("logit_scale",)
#: adapters by their tensors: LoRA as diffusers, peft and kohya name it, LoHa, LoKr, (IA)3, and what
#: LyCORIS calls whole differences
_LORA = re.compile(
    r"[._](?:lora|hada|lokr|oft|ia3)[._]|[._](?:alpha|dora_scale|diff|diff_b)$", re.ASCII
)
_MATRICES = re.compile(r"[._]lora[._]", re.ASCII)
#: words that a text encoder learnt: a few rows as wide as it is
_EMBEDDINGS = frozenset({"emb_params", "clip_l", "clip_g", "t5xxl", "string_to_param.*"})


def is_adapter(tensors: Sequence[Tensor]) -> bool:
    """Return whether most tensors are a LoRA's, or those of another adapter like it."""
    return sum(_LORA.search(one.name) is not None for one in tensors) * 2 > len(tensors)


def read_saved_file(path: Path) -> SavedModel:
    """Return the model in a single safetensors file, its parts by the names of its tensors.

    Raises SourceError for a LoRA and for learnt words, which are no models by themselves.
    """
    return read_saved_header(read_safetensors(path))


def read_saved_header(header: SafetensorsHeader) -> SavedModel:
    """Return the same of a file whose header was read, wherever it is."""
    path = header.path
    if not header.tensors:
        raise SourceError(f"{path}: no tensors in it")
    if is_adapter(header.tensors):
        if not any(_MATRICES.search(one.name) for one in header.tensors):
            hint = "name the model it is for: fused into its weights it takes nothing beside them"
            raise SourceError(f"{path}: a LoHa, LoKr or the like, no model by itself", hint=hint)
        here = "FILE, once it is here" if ":" in path.partition("/")[0] else path
        hint = f"name the model it is for, and this file with --set lora={here}"
        raise SourceError(f"{path}: a LoRA, no model by itself", hint=hint)
    if all(one.name in _EMBEDDINGS for one in header.tensors):
        hint = "name the model whose prompts it is for: it takes some KiB beside that"
        raise SourceError(f"{path}: an embedding (textual inversion), no model", hint=hint)
    found = _split_checkpoint(header.tensors)
    if found is None:
        tensors = without_tied(header.tensors, {})
        part = Part(name="model", class_path="", config={}, tensors=tensors)
        return _single(path, "model", (part,))
    parts = (
        Part(name=name, class_path="", config={}, tensors=without_tied(tensors, {}))
        for name, tensors in found.items()
    )
    return _single(path, "checkpoint", tuple(parts))


def _split_checkpoint(tensors: Iterable[Tensor]) -> dict[str, list[Tensor]] | None:
    """Return a single file's tensors by component, None where they are those of one alone."""
    found: dict[str, list[Tensor]] = {}
    rest: dict[str, list[Tensor]] = {}
    is_checkpoint = False  # others may have a part called so
    for tensor in tensors:
        if tensor.name.startswith(_AVERAGED):
            continue
        prefix = next((one for one in _CHECKPOINT if tensor.name.startswith(one)), None)
        encoder = _ENCODER.match(tensor.name)
        if prefix is not None:
            name = _CHECKPOINT[prefix]
            is_checkpoint = is_checkpoint or prefix != _VAE
        elif encoder is not None:
            prefix = encoder[0]
            name = _ENCODERS.get(encoder["name"], f"text_encoder_{encoder[1]}")
        else:
            rest.setdefault(tensor.name.partition(".")[0], []).append(tensor)
            continue
        found.setdefault(name, []).extend(_split_fused(tensor.name.removeprefix(prefix), tensor))
    if not is_checkpoint:
        return None
    for name, more in rest.items():
        if sum(one.elements for one in more) >= _OF_A_PART and _CLASS.fullmatch(name):
            found.setdefault(name, []).extend(more)
    return found


def _single(path: str, kind: str, parts: tuple[Part, ...]) -> SavedModel:
    return SavedModel(
        place=path, kind=kind, class_name="", runtime="diffusers", parts=parts, config={}
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
