"""Which keys of a header an architecture's graph depends on: asked of the engine, key by key."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from tools.graphs.asking import Asking, EngineError
from tools.graphs.samples import request_of, run_of
from vramplan.engines.ggml.graph.tape import class_of
from vramplan.sources.gguf_header import GgufFile, Value

_KEY = re.compile(rb"\0%s\.([a-z][a-z0-9_.]+)(?=\0)")
#: keys that are no numbers of a model's graph
_NEVER = frozenset({"vocab_size", "block_count", "embedding_length"})
#: values that are tried for a key, of each type that it may have
_TRIED: tuple[Value, ...] = (0, 1, 7, 0.0, 1.0, 2.5, False, True)
_WORDS = ("linear", "yarn", "none", "longrope")
#: keys of which the engine ends the process for any other value than these, or no value
_TAKEN: Mapping[str, tuple[Value, ...]] = {
    "classifier.activation": (), "expert_count": (0,), "expert_group_count": (0,),
    "expert_used_count": (0,), "nextn_predict_layers": (0,),
}  # fmt: skip
_SETTINGS = (
    {"context": 2048, "ubatch": 256, "flash_attention": "on", "parallel": 1},
    {"context": 4096, "ubatch": 128, "flash_attention": "off", "parallel": 2, "kv_unified": "off"},
)


def known_keys(library: Path) -> list[str]:
    """Return the names of all keys that stand in the engine's library."""
    data = library.read_bytes()
    found = {match.decode() for match in _KEY.findall(data)}
    return sorted(found - _NEVER)


def replaced(header: GgufFile, key: str, value: Value | None) -> GgufFile:
    """Return a header with another value for a key of its architecture, or without it."""
    name = f"{header.architecture}.{key}"
    metadata = {one: told for one, told in header.metadata.items() if one != name}
    if value is not None:
        metadata[name] = value
    return GgufFile(path=header.path, version=3, metadata=metadata, lengths=header.lengths,
                    tensors=header.tensors)  # fmt: skip


class Prober:
    """Asks whether a header with another key has the same graph."""

    def __init__(self, asking: Asking, header: GgufFile) -> None:
        self._asking, self._header = asking, header
        runs = [run_of(header, {**one, "engine": "b11549"}) for one in _SETTINGS]
        self._requests = [request_of(run) for run in runs]
        told = asking.digests([header], self._requests)[0]
        if isinstance(told, str):
            raise EngineError(told)
        self._base = told

    def read(self, keys: Sequence[str]) -> list[str]:
        """Return those of the keys that the architecture reads: it minds one of another type."""
        asked: list[tuple[str, Value]] = [(key, "a word") for key in keys]
        asked += [(key, 7) for key in keys if _is_word(key)]
        told = self._asking.loads([replaced(self._header, key, value) for key, value in asked])
        found = {key for (key, _), said in zip(asked, told, strict=True) if "wrong type" in said}
        return sorted(found)

    def classes(self, keys: Sequence[str]) -> dict[str, dict[str, bool]]:
        """Return for each class of a key's value whether the graph stays the same with it."""
        found: dict[str, dict[str, bool]] = {key: {} for key in keys}
        asked: list[tuple[str, Value | None]] = []
        for key in keys:
            own = self._header.metadata.get(f"{self._header.architecture}.{key}")
            if isinstance(own, tuple):
                found[key][class_of(own)] = True
            elif type(own) is int and own > 1:
                found[key]["0"] = False  # a size: those that are drawn are known
            else:
                words = _WORDS if _is_word(key) else ()
                tried = _TAKEN.get(key, (*_TRIED, *words))
                asked += [(key, value) for value in (None, *tried)]
                found[key] |= {"more": False} if key in _TAKEN else {}
        others = [replaced(self._header, key, value) for key, value in asked]
        for (key, value), told in zip(
            asked, self._asking.digests(others, self._requests), strict=True
        ):
            if isinstance(told, str) and "wrong type" in told:
                continue
            kind = class_of(value)
            found[key][kind] = found[key].get(kind, True) and told == self._base
        return found


def _is_word(key: str) -> bool:
    return "type" in key or "activation" in key
