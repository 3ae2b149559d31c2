"""Models of Ollama's library that are not installed here: their manifests, and headers by ranges.

``ollama pull`` asks the same two questions, and then for all bytes; here a header is read, a few
MiB. The Hugging Face hub answers alike for ``hf.co/ORG/NAME:Q4_K_M``; other registries that a name
may begin with are not asked. VRAMPLAN_OLLAMA_REGISTRY is the address of a mirror of the library.
Nothing is kept. Source: ollama/ollama, server/images.go (pullModelManifest), types/model/name.go.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping

from vramplan.codec import Json, JsonError, Limits, parse_json
from vramplan.errors import SourceError
from vramplan.quick_dataclass import dataclass
from vramplan.sources.gguf import LONGEST_HEADER, read_header
from vramplan.sources.gguf_header import GgufFile
from vramplan.sources.hub_web import Hub, Ranges, RefusedError, ask_hub, get, is_address
from vramplan.sources.ollama_store import (
    ADAPTER,
    DRAFT,
    HOST,
    MODEL,
    PARAMETERS,
    PREFIX,
    PROJECTOR,
    TENSOR,
    digest_of,
    layers_of,
    name_parts,
    without_model,
)

_LIMITS = Limits(text_bytes=4 << 20, parsed_bytes=64 << 20)
_CONFIG = Limits(text_bytes=1 << 20)
#: the first answer for a header: those of models of 32,000 words are whole in it
_FIRST = 1 << 20
_LIBRARY = "https://registry.ollama.ai"
_HUBS = ("hf.co", "huggingface.co")
_ACCEPTED = {"Accept": "application/vnd.docker.distribution.manifest.v2+json"}


@dataclass(frozen=True, slots=True, kw_only=True)
class LibraryModel:
    """A model of a registry: headers of its files, and the parameters its template sets.

    `left_out` names what it has beside them that only an installed model is planned with.
    """

    model: GgufFile
    projector: GgufFile | None
    parameters: Mapping[str, object]
    left_out: tuple[str, ...] = ()


def read_from_registry(name: str, environment: Mapping[str, str] | None = None) -> LibraryModel:
    """Return the model called `name`, as ``ollama pull`` takes it.

    Raises SourceError where there is none of the name, where the registry does not answer, and for
    a model that is no .gguf.
    """
    registry = _registry(name, os.environ if environment is None else environment)
    manifest = registry.manifest()
    layers = list(layers_of(manifest, registry.base))
    kinds = [kind for kind, _ in layers]
    if MODEL not in kinds:
        config = manifest.get("config")
        told = registry.small(config.get("digest")) if isinstance(config, dict) else {}
        raise without_model(name, registry.base, told, kinds.count(TENSOR))
    first = dict(reversed(layers))
    return LibraryModel(
        model=registry.header(first[MODEL]),
        projector=registry.header(first[PROJECTOR]) if PROJECTOR in first else None,
        parameters=registry.small(first[PARAMETERS]) if PARAMETERS in first else {},
        left_out=tuple(_left_out(kinds)),
    )


def is_on_hub(name: str) -> bool:
    """Return whether a name is of a repository on the Hugging Face hub."""
    return name.partition("/")[0] in _HUBS


def _registry(name: str, environ: Mapping[str, str]) -> _Registry:
    """Return who is asked for a model: the library, to which no token goes, or the hub."""
    host, owner, model, tag = name_parts(name)
    if host in _HUBS:
        hub = ask_hub(environ)
        return _Registry(name=name, base=f"{hub.endpoint}/v2/{owner}/{model}", tag=tag, hub=hub)
    if host != HOST:
        message = f"{PREFIX}{name}: not installed, and {host} is not asked for models"
        raise SourceError(message, hint=f"ollama pull {name}")
    library = environ.get("VRAMPLAN_OLLAMA_REGISTRY", "").strip().rstrip("/") or _LIBRARY
    if not is_address(library):
        hint = f"such as {_LIBRARY}, without a name and a password in it"
        raise SourceError("VRAMPLAN_OLLAMA_REGISTRY: not the address of a registry", hint=hint)
    return _Registry(name=name, base=f"{library}/v2/{owner}/{model}", tag=tag, hub=ask_hub({}))


def _left_out(kinds: list[str]) -> Iterator[str]:
    if ADAPTER in kinds:
        yield "an adapter"
    if DRAFT in kinds:
        yield "a model that guesses ahead"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Registry:
    """Where a model is, and how long it may take to answer."""

    name: str
    base: str
    tag: str
    hub: Hub

    def manifest(self) -> dict[str, Json]:
        """Return what files a model has."""
        url = f"{self.base}/manifests/{self.tag}"
        try:
            data = get(url, self.hub, _LIMITS.text_bytes, _ACCEPTED)
        except RefusedError as problem:
            if problem.code != 404:
                raise
            message = f"{PREFIX}{self.name}: neither installed, nor in the library by this name"
            hint = "https://ollama.com/search finds names, a model's page its tags"
            raise SourceError(message, hint=hint) from None
        except SourceError as problem:
            hint = f"ollama pull {self.name}, where there is a network"
            message = f"{PREFIX}{self.name}: not installed, and {problem}"
            raise SourceError(message, hint=hint) from None
        return self._parsed(data, url, _LIMITS)

    def small(self, digest: object) -> dict[str, Json]:
        """Return a small file of JSON."""
        url = self._url(digest)
        return self._parsed(get(url, self.hub, _CONFIG.text_bytes, {}), url, _CONFIG)

    def header(self, digest: object) -> GgufFile:
        """Return the header of a .gguf."""
        reader = Ranges(self._url(digest), self.hub, LONGEST_HEADER)
        return read_header(reader.read(_FIRST), f"{PREFIX}{self.name}", reader.read)

    def _url(self, digest: object) -> str:
        return f"{self.base}/blobs/sha256:{digest_of(digest, self.base)}"

    def _parsed(self, data: bytes, url: str, limits: Limits) -> dict[str, Json]:
        try:
            found = parse_json(data, url, limits)
        except JsonError as problem:
            raise SourceError(str(problem)) from None
        if not isinstance(found, dict):
            raise SourceError(f"{url}: not an object")
        return found
