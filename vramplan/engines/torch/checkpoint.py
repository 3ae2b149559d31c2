"""Where the weights of a measured torch pipeline come from."""

from __future__ import annotations

import re
from pathlib import Path

from vramplan.errors import UsageError
from vramplan.model import Pipeline

#: a repository on the hub; the oldest have no organisation
_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]{0,95}(?:/[A-Za-z0-9][\w.-]{0,95})?", re.ASCII)
_HUB = "https://huggingface.co/"


def checkpoint_of(weights: str, pipeline: Pipeline) -> str | None:
    """Return where weights come from: None for random ones, a folder, or a name on the hub.

    Raises UsageError for what is neither, and where the catalogue names no repository.
    """
    if weights == "random":
        return None
    if weights == "pretrained":
        source = pipeline.source.split()[0] if pipeline.source else ""
        if not source.startswith(_HUB):
            hint = "--weights FOLDER or --weights hf:ORG/NAME"
            raise UsageError(f"{pipeline.name}: the catalogue names no repository", hint=hint)
        return source.removeprefix(_HUB).strip("/")
    if weights.startswith("hf:"):
        name = weights.removeprefix("hf:")
        if not _HUB_NAME.fullmatch(name):
            raise UsageError(f"--weights {weights}: not a name on the hub", hint="hf:ORG/NAME")
        return name
    if Path(weights).is_dir():
        return weights
    hint = "random, pretrained, a folder, or hf:ORG/NAME"
    raise UsageError(f"--weights {weights}: not a folder", hint=hint)
