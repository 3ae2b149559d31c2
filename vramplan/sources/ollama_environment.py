"""What Ollama's environment sets for every model it loads.

Values are read as Ollama reads them: spaces and quotes around them do not count, and a number that
is none is left out. Source: ollama/ollama, envconfig/config.go.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

from vramplan.errors import SourceError, did_you_mean
from vramplan.quick_dataclass import dataclass
from vramplan.setting_values import KV_TYPES, SettingValue

_FALSE = frozenset({"0", "f", "F", "FALSE", "false", "False"})
_LARGEST = 1 << 24
_LARGEST_OVERHEAD = 1 << 44  # bytes; 16 TiB

_CONTEXT, _PARALLEL = "OLLAMA_CONTEXT_LENGTH", "OLLAMA_NUM_PARALLEL"
_KV_TYPE, _FLASH = "OLLAMA_KV_CACHE_TYPE", "OLLAMA_FLASH_ATTENTION"
_OVERHEAD, _SPREAD = "OLLAMA_GPU_OVERHEAD", "OLLAMA_SCHED_SPREAD"


@dataclass(frozen=True, slots=True, kw_only=True)
class OllamaEnvironment:
    """Settings that the environment makes, memory that is set aside, and the variables that did it.

    Since Ollama runs llama-server, `overhead_bytes` count for its default context alone.
    """

    settings: Mapping[str, SettingValue]
    overhead_bytes: int
    used: tuple[str, ...]


def read_environment(environment: Mapping[str, str] | None = None) -> OllamaEnvironment:
    """Return what the environment says; raises SourceError for a KV type that no engine has."""
    environ = os.environ if environment is None else environment
    said = {
        name: environ.get(name, "").strip().strip("\"'")
        for name in (_CONTEXT, _PARALLEL, _KV_TYPE, _FLASH, _OVERHEAD, _SPREAD)
    }
    found: dict[str, SettingValue] = {}
    used = []
    for name, setting in ((_CONTEXT, "context"), (_PARALLEL, "parallel")):
        number = _number(said[name], _LARGEST)
        if number:
            found[setting] = number
            used.append(f"{name}={number}")
    if said[_KV_TYPE]:
        found["kv_type"] = _kv_type(said[_KV_TYPE])
        used.append(f"{_KV_TYPE}={said[_KV_TYPE][:20]}")
    if said[_FLASH]:  # whatever is not a word for no is taken for a yes
        found["flash_attention"] = "off" if said[_FLASH] in _FALSE else "on"
        used.append(f"{_FLASH}={said[_FLASH][:20]}")
    if said[_SPREAD] and said[_SPREAD] not in _FALSE:
        found["split_mode"] = "layer"
        used.append(f"{_SPREAD}={said[_SPREAD][:20]}")
    overhead = _number(said[_OVERHEAD], _LARGEST_OVERHEAD)
    if overhead:
        used.append(f"{_OVERHEAD}={overhead}")
    return OllamaEnvironment(settings=found, overhead_bytes=overhead, used=tuple(used))


def _number(text: str, most: int) -> int:
    """Return a whole number, 0 where it is none or absurd."""
    if not (text.isascii() and text.isdigit() and len(text) < 20):
        return 0
    number = int(text)
    return number if number <= most else 0


def _kv_type(text: str) -> str:
    name = text.lower()
    if name not in KV_TYPES:
        hint = did_you_mean(name, KV_TYPES) or "use " + ", ".join(KV_TYPES)
        raise SourceError(f"{_KV_TYPE}={text[:40]}: the engine has no such type", hint=hint)
    return name
