"""Element types and how many bytes an element takes."""

from __future__ import annotations

#: bytes of one element, by the short name used in settings
ELEMENT_BYTES = {"fp32": 4, "fp16": 2, "bf16": 2}

#: torch's own names, for the recorder and the advice
TORCH_NAMES = {"fp32": "float32", "fp16": "float16", "bf16": "bfloat16"}
