"""What LM Studio's own settings say of every model it loads: its default context, its guardrails.

They are in ``settings.json`` of its folder; what is not as expected there is left out. Sources:
lmstudio-ai/localization, en/settings.json (modelLoadingGuardrails: off, low is called Relaxed,
medium Balanced, high Strict, and custom); lmstudio-ai/lmstudio-bug-tracker#2017, which shows the
file.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from vramplan.codec import JsonError, Limits, read_object
from vramplan.quick_dataclass import dataclass
from vramplan.setting_values import SettingValue

_LIMITS = Limits(text_bytes=4 << 20, parsed_bytes=64 << 20)
_LONGEST_CONTEXT = 1 << 24
_LARGEST_LIMIT = 1 << 44
#: its names of guardrails, and people's
_MODES = {"off": "off", "low": "relaxed", "medium": "balanced", "high": "strict"}


@dataclass(frozen=True, slots=True, kw_only=True)
class LmStudioSettings:
    """Settings that it makes for every model, and what of the file said so."""

    settings: Mapping[str, SettingValue]
    used: tuple[str, ...]


def read_settings(home: Path) -> LmStudioSettings:
    """Return what ``settings.json`` in LM Studio's folder says; nothing where there is none."""
    path = home / "settings.json"
    try:
        told = read_object(path, _LIMITS) if path.is_file() else {}
    except (JsonError, OSError):
        told = {}
    found: dict[str, SettingValue] = {}
    used = []
    context = told.get("defaultContextLength")
    if isinstance(context, dict) and context.get("type") == "custom":
        tokens = _whole(context.get("value"), _LONGEST_CONTEXT)
        if tokens:
            found["context"] = tokens
            used.append(f"defaultContextLength {tokens:,}")
    guard = told.get("modelLoadingGuardrails")
    if isinstance(guard, dict):
        mode = guard.get("mode")
        limit = _whole(guard.get("customThresholdBytes"), _LARGEST_LIMIT)
        if isinstance(mode, str) and mode in _MODES:
            found["guardrail"] = _MODES[mode]
            used.append(f"guardrails {_MODES[mode]}")
        elif mode == "custom" and limit:
            found["guardrail"] = f"{limit >> 20}MiB"
            used.append(f"guardrails {found['guardrail']}")
    return LmStudioSettings(settings=found, used=tuple(used))


def _whole(value: object, most: int) -> int:
    """Return a number, or a number in a text; 0 for what is none, or absurd."""
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 20:
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int):
        return 0
    return value if 0 < value <= most else 0
