"""The real llama.cpp as witness of projector files: weights and compute buffer of each family.

The engine is xllamacpp's CPU build b11549, over sparse files made on the spot. It tells the sum of
both; the weights are counted from the header.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest

from vramplan.engines.ggml.projector_compute import cpu_projector_bytes, is_certain
from vramplan.engines.ggml.projector_file import projector_of
from vramplan.engines.ggml.witness.answer import ask_projector
from vramplan.sources.gguf import read_gguf

pytest.importorskip("xllamacpp")
pytest.importorskip("gguf")

_PATH = Path(__file__).parents[1] / "sparse_projectors.py"
_SPEC = importlib.util.spec_from_file_location("sparse_projectors", _PATH)
projectors = sys.modules.setdefault("sparse_projectors", importlib.util.module_from_spec(_SPEC))
_SPEC.loader.exec_module(projectors)

FAMILIES = projectors.families()
MIB = 1 << 20
#: the engine prints hundredths of a MiB
ROUNDING = 0.006 * MIB

#: more sizes of what was tried once
MORE = {
    "llava in full": lambda: projectors.llava(count=23),
    "llava-448": lambda: projectors.llava(448),
    "clip-b-32": lambda: projectors.llava(224, wide=768, text=2048),
    "gemma3-1344": lambda: projectors.gemma3(1344),
    "gemma3-224": lambda: projectors.gemma3(224),
    "qwen2vl of 138 by 138 patches": lambda: projectors.qwen2vl(3),
    "qwen2.5vl of 138 by 138 patches": lambda: projectors.qwen25vl(3),
    "gemma4 in full": lambda: projectors.gemma4(27),
    "qwen3vl without deep layers": lambda: projectors.qwen3vl(deep=()),
    "qwen3vl in full": lambda: projectors.qwen3vl(27, (8, 16, 24)),
}


def hold(path: Path, flash: str) -> None:
    """Compare what the engine says with what we say."""
    vision = projector_of(read_gguf(path))
    assert is_certain(vision)
    ours = vision.weights_bytes + cpu_projector_bytes(vision, has_flash=flash == "on")
    assert ours == pytest.approx(ask_projector(path, {"flash_attention": flash}), abs=ROUNDING)


@pytest.mark.parametrize("flash", ["on", "off"])
@pytest.mark.parametrize("name", FAMILIES)
def test_the_engine_allocates_what_we_say(tmp_path, name, flash) -> None:
    hold(projectors.sparse.write(tmp_path / "mmproj.gguf", FAMILIES[name]), flash)


@pytest.mark.slow
@pytest.mark.parametrize("flash", ["on", "off"])
@pytest.mark.parametrize("name", MORE)
def test_over_sizes_and_layers(tmp_path, name, flash) -> None:
    hold(projectors.sparse.write(tmp_path / "mmproj.gguf", MORE[name]()), flash)


def test_what_the_engine_refuses_is_said_in_its_words(tmp_path) -> None:
    from vramplan.errors import MeasurementError

    model = projectors.llava()
    model.meta["projector_type"] = "nothing_known"
    path = projectors.sparse.write(tmp_path / "mmproj.gguf", model)
    with pytest.raises(MeasurementError, match=r"refuses it: mtmd.*Failed to load CLIP model"):
        ask_projector(path, {})
