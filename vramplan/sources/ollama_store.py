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

HOST, _NAMESPACE, _TAG = "registry.ollama.ai", "library", "latest"
_PART = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,349}")
_REGISTRY = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,340}(?::[0-9]{1,5})?")
_DIGEST = re.compile(r"sha256[:-]([0-9a-f]{64})")
_LIMITS = Limits(text_bytes=4 << 20, parsed_bytes=64 << 20)
_MOST_LAYERS = 20_000  # a model in safetensors has one for every tensor
_MOST_NAMES = 10_000

#: what a layer of a manifest is, by its media type
MODEL = "application/vnd.ollama.image.model"
PROJECTOR = "application/vnd.ollama.image.projector"
PARAMETERS = "application/vnd.ollama.image.params"
ADAPTER = "application/vnd.ollama.image.adapter"
DRAFT = "application/vnd.ollama.image.draft"
TENSOR = "application/vnd.ollama.image.tensor"


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


def find_installed(name: str, environment: Mapping[str, str] | None = None) -> OllamaModel | None:
    """Return the model called `name`, as ``ollama run`` takes it; None where it is not installed.

    Raises SourceError for what is no name, and where a model's files are gone.
    """
    place = _place(name)
    for folder in store_folders(environment):
        path = folder / "manifests" / place
        if path.is_file():
            return _read(name, path, folder)
    return None


def is_installed(name: str, environment: Mapping[str, str] | None = None) -> bool:
    """Return whether there is a manifest of the name; not for what is no name."""
    try:
        place = _place(name)
    except SourceError:
        return False
    return any((folder / "manifests" / place).is_file() for folder in store_folders(environment))


def nearest_installed(name: str, environment: Mapping[str, str] | None = None) -> str | None:
    """Return a hint at what is installed of a like name, or at all; None where nothing is."""
    known = list(_installed(store_folders(environment)))
    if not known:
        return None
    return did_you_mean(name, known) or "installed: " + ", ".join(known[:10])


def installed_names(environment: Mapping[str, str] | None = None) -> list[str]:
    """Return the names of all that is installed, as ``ollama run`` takes them, each once."""
    return list(dict.fromkeys(_installed(store_folders(environment))))


def name_parts(name: str) -> tuple[str, str, str, str]:
    """Return a name's registry, owner, model and tag; raises SourceError for what is no name."""
    whole, _, tag = name.rpartition(":") if ":" in name.rpartition("/")[2] else (name, "", _TAG)
    parts = whole.split("/")
    named = (*parts[1:], tag) if len(parts) == 3 else (*parts, tag)
    is_registry = len(parts) < 3 or _REGISTRY.fullmatch(parts[0])
    if len(parts) > 3 or not is_registry or not all(_PART.fullmatch(part) for part in named):
        raise SourceError(f"{PREFIX}{name}: not a name of Ollama's", hint="such as ollama:llava:7b")
    defaults = [HOST, _NAMESPACE]
    host, namespace, model = [*defaults[: 3 - len(parts)], *parts]
    return host, namespace, model, tag


def _place(name: str) -> Path:
    """Return where a name's manifest is, below the folder of manifests."""
    return Path(*name_parts(name))


def layers_of(manifest: Mapping[str, Json], place: object) -> Iterator[tuple[str, Json]]:
    """Yield what a manifest's files are, each with its digest, unchecked; raises SourceError."""
    layers = manifest.get("layers")
    if not isinstance(layers, list) or len(layers) > _MOST_LAYERS:
        raise SourceError(f"{place}: not a manifest of Ollama's")
    for layer in layers:
        if isinstance(layer, dict):
            yield str(layer.get("mediaType", "")), layer.get("digest")


def _read(name: str, path: Path, folder: Path) -> OllamaModel:
    manifest = _object(path)
    files: dict[str, Path] = {}
    adapters, tensors = [], 0
    for kind, digest in layers_of(manifest, path):
        if kind in (MODEL, PROJECTOR, PARAMETERS, DRAFT) and kind not in files:
            files[kind] = _blob(name, path, folder, digest)
        elif kind == ADAPTER:
            adapters.append(_blob(name, path, folder, digest))
        tensors += kind == TENSOR
    if MODEL not in files:
        config = manifest.get("config")
        known: Mapping[str, Json] = {}
        if isinstance(config, dict) and not tensors:
            known = _object(_blob(name, path, folder, config.get("digest")))
        raise without_model(name, path, known, tensors)
    parameters = _object(files[PARAMETERS]) if PARAMETERS in files else {}
    return OllamaModel(
        name=name,
        model=files[MODEL],
        projector=files.get(PROJECTOR),
        parameters=parameters,
        adapters=tuple(adapters),
        draft=files.get(DRAFT),
    )


def without_model(
    name: str, place: object, config: Mapping[str, Json], tensors: int
) -> SourceError:
    """Return what to say of a manifest that names no .gguf, by its configuration."""
    if tensors:
        return SourceError(
            f"{PREFIX}{name}: {tensors:,} tensors in safetensors, which Ollama's MLX engine runs",
            hint="what that takes is not known; a tag of the model that is a .gguf can be read",
        )
    if config.get("remote_host") or config.get("remote_model"):
        return SourceError(
            f"{PREFIX}{name}: a model of Ollama's cloud", hint="it takes nothing of a card here"
        )
    return SourceError(f"{PREFIX}{name}: its manifest names no model", hint=str(place))


def digest_of(digest: object, place: object) -> str:
    """Return the hexadecimal digits of a digest; raises SourceError for what is none."""
    match = _DIGEST.fullmatch(digest) if isinstance(digest, str) else None
    if match is None:
        raise SourceError(f"{place}: {str(digest)[:80]!r} is not a digest")
    return match[1]


def _blob(name: str, manifest: Path, folder: Path, digest: object) -> Path:
    digits = digest_of(digest, manifest)
    for separator in "-:":  # older versions wrote a colon
        path = folder / "blobs" / f"sha256{separator}{digits}"
        if path.is_file():
            return path
    message = f"{PREFIX}{name}: a file of it is gone: {folder / 'blobs' / ('sha256-' + digits)}"
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
            yield short if host == HOST else f"{host}/{namespace}/{model}:{tag}"
