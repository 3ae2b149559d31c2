"""Models that Ollama keeps on this machine: manifests that name blobs, by digest.

Source: ollama/ollama, manifest/manifest.go and layer.go, server/images.go (GetModel: what each
layer is), types/model/name.go (names and their defaults) and config.go, and envconfig/config.go
(OLLAMA_MODELS); where its Linux service keeps models, scripts/install.sh.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from vramplan.codec import Json, JsonError, Limits, read_object
from vramplan.errors import SourceError, did_you_mean
from vramplan.quick_dataclass import dataclass

PREFIX = "ollama:"

_HOST, _NAMESPACE, _TAG = "registry.ollama.ai", "library", "latest"
_PART = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:-]{0,349}")
_DIGEST = re.compile(r"sha256[:-]([0-9a-f]{64})")
_LIMITS = Limits(text_bytes=4 << 20, parsed_bytes=64 << 20)
_MOST_LAYERS = 20_000  # a model in safetensors has one for every tensor
_MOST_NAMES = 10_000

_MODEL = "application/vnd.ollama.image.model"
_PROJECTOR = "application/vnd.ollama.image.projector"
_PARAMETERS = "application/vnd.ollama.image.params"
_ADAPTER = "application/vnd.ollama.image.adapter"
_DRAFT = "application/vnd.ollama.image.draft"
_TENSOR = "application/vnd.ollama.image.tensor"


@dataclass(frozen=True, slots=True, kw_only=True)
class OllamaModel:
    """An installed model: its files, and the parameters its template sets.

    `draft` is a model that guesses ahead.
    """

    name: str
    model: Path
    projector: Path | None
    parameters: Mapping[str, object]
    adapters: tuple[Path, ...] = ()
    draft: Path | None = None


def store_folders(environment: Mapping[str, str] | None = None) -> list[Path]:
    """Return where models may be kept: OLLAMA_MODELS alone, else the user's and the service's."""
    environ = os.environ if environment is None else environment
    named = environ.get("OLLAMA_MODELS", "").strip()
    if named:
        return [Path(named)]
    home = Path(environ.get("HOME", "") or Path.home())
    return [home / ".ollama" / "models", Path("/usr/share/ollama/.ollama/models")]


def find_installed(name: str, environment: Mapping[str, str] | None = None) -> OllamaModel:
    """Return the model called `name`, as ``ollama run`` takes it.

    Raises SourceError for one that is not installed, and where its files are gone.
    """
    folders = store_folders(environment)
    place = _place(name)
    for folder in folders:
        path = folder / "manifests" / place
        if path.is_file():
            return _read(name, path, folder)
    known = list(_installed(folders))
    near = did_you_mean(name, known)
    hint = f"ollama pull {name}"
    if near:
        hint = f"{near} if not: {hint}"
    elif known:
        hint += "; installed: " + ", ".join(known[:10])
    where = " or ".join(str(folder) for folder in folders)
    raise SourceError(f"{PREFIX}{name}: not installed in {where}", hint=hint)


def installed_names(environment: Mapping[str, str] | None = None) -> list[str]:
    """Return the names of all that is installed, as ``ollama run`` takes them, each once."""
    return list(dict.fromkeys(_installed(store_folders(environment))))


def _place(name: str) -> Path:
    """Return where a name's manifest is, below the folder of manifests."""
    whole, _, tag = name.rpartition(":") if ":" in name.rpartition("/")[2] else (name, "", _TAG)
    parts = whole.split("/")
    if len(parts) > 3 or not all(_PART.fullmatch(part) for part in (*parts, tag)):
        raise SourceError(f"{PREFIX}{name}: not a name of Ollama's", hint="such as ollama:llava:7b")
    if any(part in {".", ".."} for part in parts):
        raise SourceError(f"{PREFIX}{name}: not a name of Ollama's")
    defaults = [_HOST, _NAMESPACE]
    return Path(*defaults[: 3 - len(parts)], *parts, tag)


def _read(name: str, path: Path, folder: Path) -> OllamaModel:
    manifest = _object(path)
    layers = manifest.get("layers")
    if not isinstance(layers, list) or len(layers) > _MOST_LAYERS:
        raise SourceError(f"{path}: not a manifest of Ollama's")
    files: dict[str, Path] = {}
    adapters, tensors = [], 0
    for layer in layers:
        if isinstance(layer, dict):
            kind = str(layer.get("mediaType", ""))
            if kind in (_MODEL, _PROJECTOR, _PARAMETERS, _DRAFT) and kind not in files:
                files[kind] = _blob(name, path, folder, layer.get("digest"))
            elif kind == _ADAPTER:
                adapters.append(_blob(name, path, folder, layer.get("digest")))
            tensors += kind == _TENSOR
    if _MODEL not in files:
        raise _without_model(name, path, folder, manifest.get("config"), tensors)
    parameters = _object(files[_PARAMETERS]) if _PARAMETERS in files else {}
    return OllamaModel(
        name=name,
        model=files[_MODEL],
        projector=files.get(_PROJECTOR),
        parameters=parameters,
        adapters=tuple(adapters),
        draft=files.get(_DRAFT),
    )


def _without_model(name: str, path: Path, folder: Path, config: Json, tensors: int) -> SourceError:
    """Return what to say of a manifest that names no .gguf."""
    if tensors:
        return SourceError(
            f"{PREFIX}{name}: {tensors:,} tensors in safetensors, which Ollama's MLX engine runs",
            hint="what that takes is not known; a tag of the model that is a .gguf can be read",
        )
    if isinstance(config, dict):
        told = _object(_blob(name, path, folder, config.get("digest")))
        if told.get("remote_host") or told.get("remote_model"):
            return SourceError(
                f"{PREFIX}{name}: a model of Ollama's cloud", hint="it takes nothing of a card here"
            )
    return SourceError(f"{PREFIX}{name}: its manifest names no model", hint=str(path))


def _blob(name: str, manifest: Path, folder: Path, digest: object) -> Path:
    match = _DIGEST.fullmatch(digest) if isinstance(digest, str) else None
    if match is None:
        raise SourceError(f"{manifest}: {str(digest)[:80]!r} is not a digest")
    for separator in "-:":  # older versions wrote a colon
        path = folder / "blobs" / f"sha256{separator}{match[1]}"
        if path.is_file():
            return path
    message = f"{PREFIX}{name}: a file of it is gone: {folder / 'blobs' / ('sha256-' + match[1])}"
    raise SourceError(message, hint=f"ollama pull {name}")


def _object(path: Path) -> dict[str, Json]:
    try:
        return read_object(path, _LIMITS)
    except JsonError as problem:
        raise SourceError(str(problem)) from None


def _installed(folders: list[Path]) -> Iterator[str]:
    """Yield the names of what is installed, as people write them."""
    for folder in folders:
        root = folder / "manifests"
        for number, path in enumerate(sorted(root.glob("*/*/*/*"))):
            if number >= _MOST_NAMES:
                return
            host, namespace, model, tag = path.relative_to(root).parts
            short = f"{model}:{tag}"
            if namespace != _NAMESPACE:
                short = f"{namespace}/{short}"
            yield short if host == _HOST else f"{host}/{namespace}/{model}:{tag}"
